"""vivace: a chatbot inference stack."""
