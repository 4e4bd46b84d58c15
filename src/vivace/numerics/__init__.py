"""Number formats as data, with numpy twins of the native kernels."""
