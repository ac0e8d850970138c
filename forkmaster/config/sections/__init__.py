"""Every setting, declared once; one module per section of the reference page."""
