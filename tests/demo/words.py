"""How the demo speaks: a line that changes while something goes on, on a terminal; plain lines elsewhere."""

import os
import shutil
import sys


class Words:
    """Progress and failures go to stderr, the result to stdout."""

    def __init__(self):
        colours = not os.environ.get("NO_COLOR")
        self.live = sys.stderr.isatty()
        self.colours_err = colours and self.live
        self.colours_out = colours and sys.stdout.isatty()

    def step(self, text):
        """What goes on now. Nothing in a pipe, where a line can't be taken back."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self._err(f"\r\x1b[K{('  … ' + text)[:width]}")

    def done(self, text):
        """What has been done."""
        self._err(f"{self._clear()}{self._paint('32', '✓', self.colours_err)} {text}\n")

    def failed(self, text):
        self._err(f"{self._clear()}{self._paint('1;31', 'error:', self.colours_err)} {text}\n")

    def say(self, text):
        self._err(f"{self._clear()}{text}\n")

    def table(self, rows):
        """Label, number and a word about it, in three columns."""
        labels = max(len(label) for label, _, _ in rows)
        numbers = max(len(number) for _, number, _ in rows)
        print()
        for label, number, note in rows:
            number, note = self._paint("1", number.rjust(numbers), self.colours_out), self._paint("2", note, self.colours_out)
            print(f"  {label:<{labels}}  {number}  {note}".rstrip())
        print()

    def next_steps(self, commands, note):
        """Commands to copy, each under a comment."""
        print("Try next:\n")
        for command, reason in commands:
            print(f"  {self._paint('2', '# ' + reason, self.colours_out)}")
            print(f"  {self._paint('36', command, self.colours_out)}")
        print(f"\n{note}", flush=True)

    def _clear(self):
        return "\r\x1b[K" if self.live else ""

    @staticmethod
    def _paint(style, text, wanted):
        return f"\x1b[{style}m{text}\x1b[0m" if wanted else text

    @staticmethod
    def _err(text):
        sys.stderr.write(text)
        sys.stderr.flush()


def thousands(number):
    return f"{number:,}"


def human_bytes(count):
    """Binary units, one digit behind the point, as the broker's own tables have them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def human_micros(micros):
    """A latency in the unit that a person would choose."""
    if micros is None:
        return "-"
    return f"{micros / 1000:.1f} ms" if micros >= 1000 else f"{micros:.0f} µs"
