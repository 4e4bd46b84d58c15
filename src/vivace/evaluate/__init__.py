"""How good a model is, alone or beside another: tasks, generation, speed, a report for people, blind votes."""
