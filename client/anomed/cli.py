"""The commands of `anomed`. Each fetches, acts, shows; what it means stands in the modules beside it."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from anomed import __version__, boards, config, following, submitting, uploads
from anomed.api import Api, server_address
from anomed.problems import Problem, Refused, Status, Unreachable
from anomed.words import Voice

app = typer.Typer(
    help="Enter the challenges of an AnoMed Arena: protect medical data, or attack its protection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="ANOMED_SERVER and ANOMED_TOKEN override what `anomed login` stored.",
)
Challenge = Annotated[str, typer.Argument(help="The challenge's short name, as `anomed challenges` lists it.")]
Submission = Annotated[str, typer.Argument(help="The submission's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines for programs.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it to its score or failure.")]


class Settings:
    """What the options before the command say."""

    server = ""
    insecure = False


def connect(*, public: bool = False) -> Api:
    """The server that was chosen, with its token. Raises Problem where either is missing.

    What is `public` can be read without a token too.
    """
    server = Settings.server or config.default_server()
    if not server:
        raise Problem("Which server? Say it once: anomed login --server https://arena.example.org")
    account = config.account(server_address(server))
    token = os.environ.get("ANOMED_TOKEN", "") or account.token
    if not token and not public:
        raise Problem(f"You are not signed in with {account.server}: anomed login --server {account.server}")
    return Api(account.server, token=token, insecure=Settings.insecure or account.insecure)


def _version(asked: bool) -> None:
    if asked:
        Voice().say(f"anomed {__version__}")
        raise typer.Exit


@app.callback()
def options(
    server: Annotated[str, typer.Option(envvar="ANOMED_SERVER", help="Address of the server.")] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain http to a server that is not this machine.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reads the options that stand before every command."""
    Settings.server, Settings.insecure = server, insecure


@app.command()
def login(
    server: Annotated[str, typer.Option(help="Address of the server.")] = "",
    email: Annotated[str, typer.Option(help="Your address; asked for if left out.")] = "",
    token: Annotated[
        str, typer.Option(help="A token from the website instead of a password; - reads it from standard input.")
    ] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain http to a server that is not this machine.")
    ] = False,
) -> None:
    """Sign in and store a token for this server."""
    address = server_address(server or Settings.server or config.default_server() or typer.prompt("Server"))
    insecure = insecure or Settings.insecure
    Api(address, insecure=insecure)  # refuses an open network before a password is typed
    if not token:
        email = email or typer.prompt("Email")
        password = sys.stdin.readline().rstrip("\r\n") if password_stdin else typer.prompt("Password", hide_input=True)
        with Api(address, insecure=insecure) as api:
            token = api.call("POST", "token", json={"email": email, "password": password})["token"]
    token = sys.stdin.readline() if token == "-" else token  # noqa: S105 - no password
    with Api(address, token=token.strip(), insecure=insecure) as api:
        me = api.get("me")
    config.remember(config.Account(address, token.strip(), insecure))
    Voice().say(f"Signed in with {address} as {me['email']}.")


@app.command()
def logout() -> None:
    """Revoke the stored token and forget it."""
    address = Settings.server or config.default_server()
    account = config.account(server_address(address)) if address else None
    if account is None or not account.token:
        raise Problem("You are not signed in.")
    config.forget(account.server)
    try:
        with Api(account.server, token=account.token, insecure=account.insecure or Settings.insecure) as api:
            api.call("DELETE", "token")
    except Refused as problem:
        if problem.code != 401:  # revoked or expired already: what was wanted
            raise
    except Unreachable as problem:
        raise Unreachable(f"{problem}\nThe token is forgotten here. Revoke it on the website too.") from problem
    Voice().say(f"Signed out of {account.server}.")


@app.command()
def challenges(as_json: AsJson = False) -> None:
    """List the challenges."""
    with connect(public=True) as api:
        boards.show_challenges(api.pages("challenges"), Voice(as_json=as_json))


@app.command()
def join(
    challenge: Challenge,
    team: Annotated[str, typer.Option(help="The name of your team, shown on the boards.")],
    accept_rules: Annotated[
        bool, typer.Option("--accept-rules", help="You have read the challenge's rules and accept them.")
    ] = False,
) -> None:
    """Take part in a challenge."""
    with connect() as api:
        if not accept_rules:
            raise Problem(f"Read the rules at {api.server}, then say that you accept them: --accept-rules")
        joined = api.call("POST", "challenges", challenge, "join", json={"accept_rules": True, "team": team})
    Voice().say(f"You take part in {challenge} as {joined['team']}.")


@app.command()
def submit(
    challenge: Annotated[str, typer.Argument(help="The challenge's short name.")] = "",
    defense: Annotated[str, typer.Option(metavar="IMAGE_OR_ARCHIVE", help="Enter this as a defense.")] = "",
    attack: Annotated[str, typer.Option(metavar="IMAGE_OR_ARCHIVE", help="Enter this as an attack.")] = "",
    message: Annotated[
        str, typer.Option("-m", "--message", help="A note for yourself, shown with the submission.")
    ] = "",
    name: Annotated[str, typer.Option(help="Its name on the boards; else that of the image or archive.")] = "",
    wait: Wait = False,
    role: Annotated[
        str,
        typer.Option(
            "--as", metavar="trivial|tuned|leaky|baseline", help="Organisers: enter it as an anchor or baseline."
        ),
    ] = "",
    epsilon: Annotated[
        float | None, typer.Option(help="Differential privacy that the defense declares; shown as not verified.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The delta that goes with --epsilon.")] = None,
    contract: Annotated[
        str,
        typer.Option(
            metavar="anomed/1|web/1", help="How the image talks: by files, or as a web server; else as its label says."
        ),
    ] = "",
    full: Annotated[bool, typer.Option("--full", help="Send every layer, and a file exactly as it is.")] = False,
    resume: Annotated[str, typer.Option(metavar="ID", help="Go on with an upload that was cut off.")] = "",
    chunk: Annotated[int, typer.Option(min=1, max=64, metavar="MIB", help="Bytes per request, in MiB.")] = uploads.CHUNK
    >> 20,
    as_json: AsJson = False,
) -> None:
    """Enter a defense or an attack: the name of a local image, or an archive made by docker save."""
    voice = Voice(as_json=as_json)
    if role not in ("", "trivial", "tuned", "leaky", "baseline"):
        raise Problem("--as takes trivial, tuned, leaky or baseline.")
    if contract not in ("", "anomed/1", "web/1"):
        raise Problem("--contract takes anomed/1 or web/1.")
    if resume:
        if challenge or defense or attack:
            raise Problem("--resume needs no more than the submission's id: this machine knows the rest.")
        note = config.note(resume)
        Settings.server = Settings.server or note.server
        with connect() as api:
            if api.server != note.server:
                raise Problem(f"That upload went to {note.server}, not to {api.server}.")
            submitting.resume(api, note, voice, chunk=chunk << 20)
            _finish(api, resume, voice, wait=wait)
        return
    if not challenge or bool(defense) == bool(attack):
        raise Problem("Name the challenge and one of --defense IMAGE_OR_ARCHIVE, --attack IMAGE_OR_ARCHIVE.")
    kind = "defense" if defense else "attack"
    entry = submitting.Entry(challenge, kind, defense or attack, name, message, role, full, epsilon, delta, contract)
    with connect() as api:
        _finish(api, submitting.submit(api, entry, voice, chunk=chunk << 20), voice, wait=wait)


def _finish(api: Api, id: str, voice: Voice, *, wait: bool) -> None:
    if not wait:
        if voice.as_json:
            voice.record(api.get("submissions", id))
        voice.say(f"See how it goes: anomed status {id} --wait")
        return
    _follow(api, id, voice)


def _follow(api: Api, id: str, voice: Voice) -> NoReturn:
    try:
        raise typer.Exit(following.follow(api, id, voice))
    except KeyboardInterrupt:
        voice.complain(f"The submission goes on without you. Follow it again: anomed status {id} --wait")
        raise


@app.command()
def status(
    id: Annotated[str, typer.Argument(help="A submission; without it, all of yours.")] = "",
    challenge: Annotated[str, typer.Option(help="Only the submissions of this challenge.")] = "",
    wait: Wait = False,
    as_json: AsJson = False,
) -> None:
    """Show one submission, or all of yours."""
    voice = Voice(as_json=as_json)
    with connect() as api:
        if not id:
            slugs = (
                [challenge] if challenge else dict.fromkeys(str(team["challenge"]) for team in api.get("me")["teams"])
            )
            boards.show_submissions(
                [entry for slug in slugs for entry in api.pages("challenges", slug, "submissions")], voice
            )
        elif wait:
            _follow(api, id, voice)
        else:
            following.show(api.get("submissions", id), voice)


@app.command()
def log(id: Submission) -> None:
    """Print the log of the rehearsal on the public sample."""
    with connect() as api:
        Voice().say(str(api.get("submissions", id, "log")["log"]).rstrip("\n"))


@app.command()
def board(challenge: Challenge, as_json: AsJson = False) -> None:
    """Show both leaderboards."""
    with connect(public=True) as api:
        boards.show_boards(api.get("challenges", challenge, "boards"), Voice(as_json=as_json))


@app.command()
def matrix(challenge: Challenge, as_json: AsJson = False) -> None:
    """Show the leak of each attack against each defense."""
    with connect(public=True) as api:
        boards.show_matrix(api.get("challenges", challenge, "matrix"), Voice(as_json=as_json))


@app.command()
def withdraw(id: Submission, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Take a submission out of all further duels."""
    with connect() as api:
        if not yes and not sys.stdin.isatty():
            raise Problem("A withdrawn entry cannot be brought back. Say --yes to withdraw it without being asked.")
        if not yes and not typer.confirm(f"Withdraw {id}? It cannot be brought back."):
            raise typer.Exit(Status.ERROR)
        api.call("POST", "submissions", id, "withdraw")
    config.drop_note(id)
    Voice().say(f"Submission {id} is withdrawn.")


@app.command()
def sample(
    challenge: Challenge,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to; - is standard output.")] = None,
) -> None:
    """Download the challenge's public sample (Parquet; the columns of the private data, no real patient)."""
    target = output or Path(f"{challenge}-sample.parquet")
    with connect(public=True) as api:
        if str(target) == "-":
            for piece in api.stream("challenges", challenge, "sample"):
                sys.stdout.buffer.write(piece)
            return
        draft = target.with_name(f".{target.name}.part")
        try:
            with draft.open("wb") as file:
                for piece in api.stream("challenges", challenge, "sample"):
                    file.write(piece)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    Voice().say(f"The sample is in {target}.")


def main() -> NoReturn:
    """The console script: every way out has its exit status, none is a traceback."""
    try:
        app()
    except Problem as problem:
        _leave(str(problem), problem.status)
    except KeyboardInterrupt:
        sys.exit(Status.INTERRUPTED)
    except OSError as error:
        _leave(f"This machine says: {error}", Status.ERROR)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if os.environ.get("ANOMED_DEBUG"):
            raise
        _leave(
            f"The server answered in a way that this program does not understand ({type(error).__name__}: {error}). "
            "Is it up to date? ANOMED_DEBUG=1 shows more.",
            Status.ERROR,
        )
    sys.exit(0)


def _leave(sentence: str, status: Status) -> NoReturn:
    Voice().complain(sentence)
    sys.exit(status)
