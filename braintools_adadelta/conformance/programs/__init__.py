"""Programs to start from, in Python, JavaScript and C++, and the one for tfjs. They are read or started, not imported."""
