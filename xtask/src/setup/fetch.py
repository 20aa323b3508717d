"""Brings parts of wheels into a folder: `python3 -c THIS JOB`, JOB being JSON (see install.rs).

pip finds the wheels and makes the connections, so its settings hold (index, proxy, certificates, credentials); this
script asks it for the rest of a file that is there in part, which pip itself cannot do.

Progress goes to stderr. Stdout gets one sentence if something went wrong, and then the exit status is 1.
"""

import errno
import fnmatch
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile

JOB = json.loads(sys.argv[1])
DOWNLOADS = JOB["downloads"]
AGAIN = "run the same command again: it goes on from there"
CHUNK = 1 << 18
# Attempts in a row that bring nothing before the download is given up.
PATIENCE = 5


def fail(sentence):
    print(sentence, flush=True)
    sys.exit(1)


def say(line, end="\n"):
    print(line, end=end, file=sys.stderr, flush=True)


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


class Progress:
    """A line that is redrawn on a terminal; elsewhere a line every tenth, or at the end of a small file."""

    def __init__(self, name, start, total):
        self.name, self.start, self.total = name, start, total
        self.began = self.drawn = time.monotonic()
        self.tenth = 10 * start // total if total else 0
        self.terminal = sys.stderr.isatty()

    def at(self, done):
        now = time.monotonic()
        rate = (done - self.start) / max(now - self.began, 1e-3)
        if not self.total:
            return
        line = "%s %3d%% of %.0f MB, %.1f MB/s" % (self.name, 100 * done // self.total, self.total / 1e6, rate / 1e6)
        if self.terminal and (now - self.drawn > 0.1 or done == self.total):
            self.drawn = now
            left = "" if done == self.total else ", %.0f s left" % ((self.total - done) / max(rate, 1))
            say("\r\x1b[K" + line + left, end="\n" if done == self.total else "")
        elif not self.terminal and 10 * done // self.total > self.tenth:
            self.tenth = 10 * done // self.total
            if done == self.total or self.total > 100e6:
                say(line)


class Listener(logging.Handler):
    """Keeps why pip could not read the index: its finder only logs it."""

    reason = None

    def emit(self, record):
        text = record.getMessage()
        if text.startswith("Could not fetch URL"):
            self.reason = text.split(": ", 1)[-1]


def find(pip):
    """The wheels' links, one a requirement: what pip would download, without the download."""
    listener = Listener()
    collector = logging.getLogger("pip._internal.index.collector")
    collector.addHandler(listener)
    collector.setLevel(logging.DEBUG)
    links = []
    for requirement in JOB["requirements"]:
        name, version = requirement.split("==")
        best = pip.finder.find_best_candidate(name, specifier=pip.specifiers("==" + version)).best_candidate
        if best is None and listener.reason:
            fail("the package index cannot be read (%s); check the network or pip's settings (`pip config list`), "
                 "then run the same command again" % listener.reason)
        if best is None:
            fail("pip finds no wheel of %s for this platform (%s); on Linux it takes glibc 2.28 or newer. %s"
                 % (requirement, JOB["platform"], JOB["instead"]))
        links.append(best.link)
    return links


class Pip:
    """pip's finder and its connections, set up from its own settings."""

    def __init__(self):
        # pip promises no Python interface. These names have stood since pip 20; where they do not, main() falls
        # back to the command line.
        from pip._internal.cli.cmdoptions import make_target_python
        from pip._internal.commands import create_command
        from pip._vendor.packaging.specifiers import SpecifierSet

        self.specifiers = SpecifierSet
        self.command = create_command("download")
        # The download is kept by this script: a copy in pip's cache would only cost space.
        options, _ = self.command.parse_args(OPTIONS + ["--no-cache-dir"])
        self.context = self.command.main_context()
        self.context.__enter__()
        self.session = self.command.get_default_session(options)
        self.finder = self.command._build_package_finder(
            options=options, session=self.session, target_python=make_target_python(options)
        )


# The C++ libraries are the same in the wheels for every Python, so any wheel does, whatever Python runs this.
OPTIONS = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11"]


def pull(session, link, part):
    """One request: appends to `part` what the server sends. Returns the file's whole size if the server told it."""
    have = size(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = "bytes=%d-" % have
    with session.get(link.url.split("#", 1)[0], headers=headers, stream=True) as response:
        sent = re.match(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        if response.status_code == 416:
            if sent is None or int(sent.group(2)) != have:
                os.remove(part)
                raise ConnectionError("the part that is here does not fit")
            return have
        if response.status_code not in (200, 206):
            raise ConnectionError("the server answered %d %s" % (response.status_code, response.reason))
        if response.status_code == 206:
            if sent is None or sent.group(1) != str(have):
                raise ConnectionError("the server sent another part than asked for")
            total = int(sent.group(2))
        else:
            # The server knows no ranges: from the start.
            have = 0
            total = int(response.headers.get("Content-Length", 0)) or None
        progress = Progress(os.path.basename(link.filename).split("-cp")[0].split("-py")[0], have, total)
        blocks = response.iter_content(CHUNK)
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            while True:
                if os.getppid() != JOB["parent"]:
                    sys.exit(1)  # the program that asked for this was killed
                block = next(blocks, None)
                if block is None:
                    return total
                file.write(block)
                have += len(block)
                progress.at(have)


def download(session, link):
    """The wheel on disk, whole and checked."""
    wheel = os.path.join(DOWNLOADS, link.filename)
    part = wheel + ".part"
    resumed = size(part)
    if size(wheel):
        return wheel
    if resumed:
        say("%s: going on after %.0f MB" % (link.filename, resumed / 1e6))
    failures = 0
    while True:
        before = size(part)
        try:
            total, reason = pull(session, link, part), "the connection broke"
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO):
                raise  # of the disk, not of the network
            total, reason = None, error
        except Exception as error:  # urllib3's own kinds
            total, reason = None, error
        else:
            if total is None or size(part) == total:
                if checked(link, part):
                    os.replace(part, wheel)
                    return wheel
                os.remove(part)
                if not resumed:
                    fail("%s arrived damaged (its SHA-256 is not the index's) and was deleted; "
                         "run the same command again" % link.filename)
                say("%s: the part that was here is damaged; from the start" % link.filename)
                resumed = 0
                continue
            if size(part) > total:
                os.remove(part)
        failures = 0 if size(part) > before else failures + 1
        if failures >= PATIENCE:
            fail("the download of %s stopped after %.0f MB (%s); %s" % (link.filename, size(part) / 1e6, reason, AGAIN))
        say("\n%s: %s; going on" % (link.filename, reason))
        time.sleep(min(2.0**failures / 2, 8))


def checked(link, path):
    """Whether the file is the index's. A folder of wheels names no hash; the archive's own checksums remain."""
    if link.hash_name is None:
        return zipfile.is_zipfile(path)
    digest = hashlib.new(link.hash_name)
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest() == link.hash


def command_line():
    """The wheels through pip's command line: whole or not at all, but with any pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet"] + OPTIONS + ["-d", DOWNLOADS]
    if subprocess.run(command + JOB["requirements"], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode:
        fail("`pip download` failed (see above)")
    wheels = []
    for requirement in JOB["requirements"]:
        name = requirement.split("==")[0].replace("-", "_")
        found = glob.glob(os.path.join(glob.escape(DOWNLOADS), name + "-*.whl"))
        if not found:
            fail("`pip download` left no wheel of %s in %s" % (requirement, DOWNLOADS))
        wheels.append(max(found, key=os.path.getmtime))
    return wheels


def unpack(wheels):
    """The wanted members of the wheels, in the target folder: whole or not at all."""
    target, unfinished = JOB["target"], JOB["target"] + ".unfinished"
    say("unpacking into %s" % target)
    shutil.rmtree(unfinished, ignore_errors=True)
    for wheel, patterns in zip(wheels, JOB["members"]):
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            for pattern in patterns:
                wanted = fnmatch.filter(names, pattern)
                if not wanted:
                    fail("%s holds no %s" % (os.path.basename(wheel), pattern))
                for name in wanted:
                    inner = name[len("torch/"):] if name.startswith("torch/") else "lib/" + os.path.basename(name)
                    path = os.path.join(unfinished, *[step for step in inner.split("/") if step not in ("", "..")])
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with archive.open(name) as source, open(path, "wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
    for inner, text in JOB["texts"].items():
        with open(os.path.join(unfinished, inner), "w") as file:
            file.write(text)
    os.sync()  # a power cut after the rename must not leave a folder that only looks whole
    shutil.rmtree(target, ignore_errors=True)
    os.rename(unfinished, target)


def main():
    os.makedirs(DOWNLOADS, exist_ok=True)
    needed = JOB["bytes"] - sum(size(path) for path in glob.glob(os.path.join(glob.escape(DOWNLOADS), "*")))
    if shutil.disk_usage(DOWNLOADS).free < needed:
        fail("%s has %.1f GB free and %s takes %.1f GB; make room or set OPHIDIAN_CACHE to a folder elsewhere"
             % (DOWNLOADS, shutil.disk_usage(DOWNLOADS).free / 1e9, JOB["what"], needed / 1e9))
    try:
        pip = Pip()
        links = find(pip)
    except (ImportError, AttributeError, TypeError) as error:
        say("this pip works otherwise inside (%s); downloading with its command line, not resumable" % error)
        wheels = command_line()
    else:
        wheels = [download(pip.session, link) for link in links]
    try:
        unpack(wheels)
    except (zipfile.BadZipFile, EOFError) as error:
        for wheel in wheels:
            os.remove(wheel)
        fail("a downloaded wheel is damaged (%s) and was deleted; run the same command again" % error)
    for wheel in wheels:
        os.remove(wheel)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        say("\nstopped; " + AGAIN)
        sys.exit(130)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fail("the disk is full (%s); make room or set OPHIDIAN_CACHE to a folder elsewhere, then %s"
                 % (error.filename or DOWNLOADS, AGAIN))
        if error.errno is None:
            fail("pip cannot connect (%s); check pip's settings (`pip config list`)" % error)
        fail("%s: %s; set OPHIDIAN_CACHE to a folder that can be written" % (error.filename or DOWNLOADS, error.strerror))
