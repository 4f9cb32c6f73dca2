"""Lines for the broker's log. The broker limits their length and number; in a native test they go to `lines`."""

lines = []


def _keep(level, message):
    lines.append((level, message))


#: Takes a level and a line; the module's build puts the broker's in its place.
write = _keep


def debug(message):
    """A line that helps to find a mistake."""
    write("debug", message)


def info(message):
    """A line about the ordinary course of things."""
    write("info", message)


def warn(message):
    """A line about something that may be wrong."""
    write("warn", message)


def error(message):
    """A line about something that is wrong."""
    write("error", message)
