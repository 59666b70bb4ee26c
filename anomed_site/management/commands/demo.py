"""`manage.py demo`: the arena at work on one machine, from an empty folder to both boards."""

import signal
import subprocess
import sys
import threading
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from anomed_site import demo
from anomed_site.processes import Supervisor
from challenges.models import Challenge
from sandbox.actions import ensure_local_host


class Command(BaseCommand):
    help = "Publishes a demo challenge, enters its starter kits, waits for the duels, prints the boards, serves on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--scenario", default=demo.DEFAULT_SCENARIO, help="the game that is played (default: %(default)s)"
        )
        parser.add_argument("--exit", action="store_true", help="stop after printing; status 0 if all was scored")
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: %(default)s)")
        parser.add_argument("--patience", type=int, default=1800, help="seconds to wait for the duels")

    def handle(self, *args: Any, scenario: str, host: str, port: int, patience: int, **options: Any) -> None:
        self.began = time.monotonic()
        self.stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop.set())
        server = f"http://{host}:{port}"
        try:
            play = demo.find(scenario)
            demo.build_images(play, self.say)
            challenge = demo.publish(play, self.say)
            ensure_local_host(slots=settings.RUN_SLOTS)
            with Supervisor(host=host, port=port) as supervisor:
                self._wait_for_site(supervisor, server)
                self.say(f"The arena is at {server}/ (watch the boards at {server}/challenges/{play.slug}/boards/)")
                for entry in play.entries:
                    supervisor.mind()
                    if self.stop.is_set():
                        return
                    demo.enter(challenge, entry, server, self.say)
                progress = self._wait_for_duels(supervisor, challenge, patience)
                self._print_boards(server, play.slug)
                if not options["exit"]:
                    self._serve(supervisor, server, play)
        except (demo.DemoFailed, subprocess.CalledProcessError) as error:
            raise CommandError(str(error)) from error
        if self.stop.is_set():
            return
        for failure in progress.failed:
            self.stderr.write(failure)
        if not progress.finished or progress.failed:
            raise CommandError(f"Not every duel was scored: {progress}. The logs are in {supervisor.logs}.")
        self.say(f"Every duel was scored: {progress.duels} of {progress.duels}.")

    def say(self, text: str) -> None:
        self.stdout.write(f"[{time.monotonic() - self.began:4.0f} s] {text}")
        self.stdout.flush()

    def _wait_for_site(self, supervisor: Supervisor, server: str) -> None:
        for _ in range(120):
            if self.stop.wait(0.5) or demo.answers(server):
                return
            supervisor.mind()
        raise demo.DemoFailed(f"The site does not answer at {server}; see {supervisor.logs / 'site.log'}.")

    def _wait_for_duels(self, supervisor: Supervisor, challenge: Challenge, patience: int) -> demo.Progress:
        deadline = time.monotonic() + patience
        shown = ""
        while True:
            progress = demo.progress(challenge)
            if str(progress) != shown:
                shown = str(progress)
                self.say(shown)
            if progress.finished or time.monotonic() > deadline or self.stop.wait(1):
                return progress
            supervisor.mind()

    def _print_boards(self, server: str, slug: str) -> None:
        for view in ("board", "matrix"):
            printed = subprocess.run(
                [sys.executable, "-m", "anomed", "--server", server, view, slug],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            self.stdout.write(printed.stdout)

    def _serve(self, supervisor: Supervisor, server: str, play: demo.Demo) -> None:
        password = demo.credentials()["password"]
        team = next(entry.team for entry in reversed(play.entries) if entry.team)
        self.say(f"Sign in at {server}/ as {demo.ORGANISER} (organiser) or {demo.email_of(team)} (a team)")
        self.say(f"with the password {password}. Ctrl-C ends the demo; the next `make demo` goes on from here.")
        while not self.stop.wait(1):
            supervisor.mind()
