"""Runs every capability's command from status.toml and writes STATUS.md.

A row passes when its command exits as expected and its output matches; a row without a command reads "not yet".
    status.py [--rows FILE] [--page FILE] [WORD ...]

With words as arguments only the rows whose section or capability contains one of them are run; the others keep what
STATUS.md says of them.
"""

import argparse
import datetime
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit("make status needs Python 3.11 or newer")

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = {"capability", "command", "test", "expect", "exit", "needs", "note", "seconds_max"}


def load(path):
    """Sections in file order, each (title, rows); unknown keys are refused so that a typing error cannot hide."""
    sections, names = [], set()
    for section in tomllib.loads(path.read_text(encoding="utf-8"))["section"]:
        for row in section["row"]:
            unknown = set(row) - ALLOWED
            if unknown or not row.get("capability"):
                sys.exit(f"{path.name}: section {section['title']!r}: {row}: unknown {sorted(unknown)} or no capability")
            if "test" in row and ("command" in row or "expect" in row):
                sys.exit(f"{path.name}: {row['capability']!r}: test stands in the place of command and expect")
            if "test" in row:
                row["command"] = f"cargo test --workspace --locked --quiet --tests -- --show-output {row.pop('test')}"
                row["expect"] = "^test result: ok. [1-9]"
            if row["capability"] in names:
                sys.exit(f"{path.name}: {row['capability']!r} stands there twice")
            names.add(row["capability"])
        sections.append((section["title"], section["row"]))
    return sections


def hardware():
    """One line on the machine: processor, cores, memory, and cards where a driver names them."""
    name = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.M)
        name = found.group(1).strip() if found else name
    parts = [name, f"{os.cpu_count()} threads"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory")
    try:
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        cards = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split("\n")
        parts += [card.strip() for card in cards if card.strip()]
    except (OSError, subprocess.SubprocessError):
        parts.append("no NVIDIA card")
    return ", ".join(parts)


def shared_data():
    """The folder of shared measurements: named by the environment, or beside the checkout."""
    named = os.environ.get("ISOTHERM_SHARED")
    folder = pathlib.Path(named) if named else ROOT.parent / "shared"
    return folder if folder.is_dir() else None


def absent(need):
    """Why a row's need is not met on this machine, or None."""
    if need == "shared":
        return None if shared_data() else "no shared data here"
    if need == "gpu":
        nodes = list(pathlib.Path("/dev").glob("nvidia[0-9]*")) + list(pathlib.Path("/dev/dri").glob("renderD*"))
        return None if nodes else "no GPU here"
    if need == "network":
        return None
    sys.exit(f"status.toml: unknown need {need!r}")


def judge(row, folder):
    """(verdict, remark) of one row, by running its command in the checkout with $OUT as scratch space."""
    missing = [why for why in map(absent, row.get("needs", [])) if why]
    if missing:
        return "not run", "; ".join(missing)
    environment = dict(os.environ, OUT=folder, NO_COLOR="1")
    if shared_data():
        environment["ISOTHERM_SHARED"] = str(shared_data())
    # The independent verifier, where `make test` put it.
    verifier = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "venv" / "bin" / "python"
    if verifier.exists():
        environment.setdefault("ISOTHERM_PYTHON", str(verifier))
    begun, limit = time.monotonic(), row.get("seconds_max", 600)
    # A session of its own, so that a command past its limit takes its children with it.
    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", row["command"]], cwd=ROOT, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "FAILS", f"no end after {limit} s"
    skipped = re.search(r"^skipped: (.*)$", output, re.M)
    if skipped:
        return "not run", f"skipped: {skipped.group(1)[:120]}"
    wanted = row.get("exit", 0)
    if process.returncode != wanted:
        last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "no output")
        return "FAILS", f"exit code {process.returncode}, not {wanted}: {last[:120]}"
    if "expect" in row and not re.search(row["expect"], output, re.M):
        return "FAILS", f"output does not match {row['expect']!r}"
    return "works", f"{time.monotonic() - begun:.1f} s"


def cell(text):
    """Text as one table cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def earlier(page):
    """Rows of the present page as capability -> whole line."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}


def main():
    parser = argparse.ArgumentParser(description="run every capability's command and write the status page")
    parser.add_argument("--rows", type=pathlib.Path, default=ROOT / "scripts" / "status.toml")
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "STATUS.md")
    parser.add_argument("words", nargs="*", help="run only rows whose section or capability contains one of these")
    arguments = parser.parse_args()
    words, page = [word.lower() for word in arguments.words], arguments.page
    before, today, counts, body = earlier(page), datetime.date.today().isoformat(), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for title, rows in load(arguments.rows):
            body += ["", f"## {title}", "", "| capability | state | shown by | when, remark |", "|---|---|---|---|"]
            for row in rows:
                name, command = cell(row["capability"]), row.get("command")
                chosen = not words or any(word in (title + " " + name).lower() for word in words)
                if not chosen and name in before:
                    line = before[name]
                elif not command:
                    line = f"| {name} | not yet | | {cell(row.get('note', ''))} |"
                else:
                    print(f"{name} ...", flush=True)
                    verdict, remark = judge(row, folder)
                    print(f"  {verdict}: {remark}", flush=True)
                    remark = "; ".join(part for part in (today, remark, row.get("note", "")) if part)
                    line = f"| {name} | {verdict} | `{cell(command)}` | {cell(remark)} |"
                state = line.split(" | ")[1]
                counts[state] = counts.get(state, 0) + 1
                body.append(line)
    head = [
        "# Status",
        "",
        "Written by `make status` from `scripts/status.toml`: each row's command is run and judged by its exit code and",
        "output. Nothing here is declared by hand. \"not yet\" means that no command shows it; \"not run\" that this machine",
        "lacks what the command needs.",
        "",
        f"Last run {today} on {platform.system()}, {hardware()}.",
        "",
        ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) + ".",
    ]
    page.write_text("\n".join(head + body) + "\n", encoding="utf-8")
    print(f"wrote {page.name}: " + head[-1])
    return 1 if counts.get("FAILS") else 0


if __name__ == "__main__":
    sys.exit(main())
