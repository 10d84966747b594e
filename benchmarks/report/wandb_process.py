"""The process that speaks with Weights & Biases for one run; `benchmarks.report.wandb` starts it.

It reads one JSON message a line from standard input and answers with one event a line on standard output.
Whatever wandb does (imports, threads, random numbers, waiting for a network, dying) happens here and not in
the process that trains.
"""

import base64
import io
import json
import os
import signal
import sys
import threading

LAST_WORDS = 120.0  # seconds that this process outlives the one that trained, at most


def main() -> None:
    """Serve until the run is finished, the input ends (the training process died) or wandb fails."""
    # wandb and the service it starts get neither end of the pipe: their words would be taken for events, and
    # an input that they hold would never end.
    messages = os.fdopen(os.dup(0), "r", encoding="utf-8")
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    void = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(void, standard)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that trains; it then tells us

    def tell(event: str, **content: str) -> None:
        try:
            print(json.dumps({"event": event, **content}), file=events, flush=True)
        except OSError:
            pass

    def thread_failed(failure: threading.ExceptHookArgs) -> None:
        tell("error", message=f"{failure.exc_type.__name__}: {failure.exc_value}")
        os._exit(1)

    threading.excepthook = thread_failed
    try:
        serve(messages, tell)
    except BaseException as error:
        tell("error", message=f"{type(error).__name__}: {error}")
        os._exit(1)
    tell("done")
    os._exit(0)  # without wandb's exit hooks, which may wait for a network


def serve(messages, tell) -> None:
    """Start the run that the first message describes, and do what the others say."""
    import wandb

    run = start(wandb, json.loads(messages.readline()))
    tell("started", url=str(getattr(run, "url", None) or ""))
    for line in messages:
        message = json.loads(line)
        kind = message["kind"]
        if kind == "log":
            run.log(message["values"], step=message["step"])
        elif kind == "images":
            from PIL import Image

            picture = Image.open(io.BytesIO(base64.b64decode(message["png"])))
            run.log({message["name"]: wandb.Image(picture)}, step=message["step"])
        elif kind == "finish":
            # The row of the last step is still open: closed by `finish`, it would overwrite the summary.
            run.log({}, commit=True)
            run.summary.update(message["summary"])
            run.finish(exit_code=int(message["failed"]))
            wandb.teardown()
            return
    stop = threading.Timer(LAST_WORDS, os._exit, (1,))
    stop.daemon = True
    stop.start()
    run.finish(exit_code=1)
    wandb.teardown()


def start(wandb, message):
    """The wandb run; silent, without code, git or console capture."""
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, disable_code=True, init_timeout=message["timeout"]
    )
    try:
        settings.x_stats_pid = os.getppid()  # the machine's load is that of the process that trains
    except Exception:
        pass  # a private setting, which another version may lack
    os.makedirs(message["dir"], exist_ok=True)
    return wandb.init(
        project=message["project"], name=message["name"], group=message["group"], id=message["id"],
        config=message["config"], dir=message["dir"], mode=message["mode"], resume="allow", settings=settings,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
