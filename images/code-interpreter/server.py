#!/usr/bin/python3
"""Runs code in Jupyter kernels for clients of HTTP, in the way of e2b's code interpreter.

POST /execute {code, context_id?, language?, env_vars?}   lines of JSON, until end_of_execution
GET, POST /contexts {language?, cwd?}                      each is a kernel with variables of its own
DELETE /contexts/ID    POST /contexts/ID/restart    GET /health

The context "default" is there from the start. In a template it also loads the libraries that most code begins with, so
that each sandbox has them in memory.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import uuid
from queue import Empty

import tornado.iostream
import tornado.web
from jupyter_client import AsyncKernelManager

PORT = 49999
DEFAULT = "default"
CONTEXTS_MAX = 32
BODY_BYTES_MAX = 16 * 1024 * 1024
READY_SECONDS = 600
INTERRUPT_SECONDS = 5
# How often a silent kernel is looked at, and after how many looks the client is told that it still runs.
LOOK_SECONDS = 1
LOOKS_PER_KEEPALIVE = 10
DIED = "the kernel ended, and was started again"
LOADED_EARLY = ["numpy", "pandas", "matplotlib.pyplot"]
NAMES = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/latex": "latex",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "application/json": "json",
    "application/javascript": "javascript",
}


class ClientLeft(Exception):
    pass


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Context:
    """A kernel, which runs one piece of code at a time."""

    def __init__(self, name, cwd):
        self.name = name
        self.cwd = cwd
        self.turn = asyncio.Lock()
        self.manager = None
        self.client = None

    async def start(self):
        self.manager = AsyncKernelManager(kernel_name="python3")
        await self.manager.start_kernel(cwd=self.cwd)
        await self.connect()

    async def connect(self):
        if self.client is not None:
            self.client.stop_channels()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=READY_SECONDS)

    async def restart(self):
        await self.manager.restart_kernel(now=True)
        await self.connect()

    async def end(self):
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)

    async def run(self, code, variables=None, has_left=lambda: False):
        """Yields what happens until the code has ended. A client that leaves interrupts it."""
        async with self.turn:
            if variables:
                await self.silently(f"get_ipython().code_interpreter.enter({variables!r})")
            request = self.client.execute(code, allow_stdin=False)
            has_ended = False
            try:
                async for event in self.events_of(request, has_left):
                    yield event
                has_ended = True
            finally:
                if not has_ended:
                    await self.interrupt(request)
                if variables:
                    await self.silently("get_ipython().code_interpreter.leave()")

    async def events_of(self, request, has_left=lambda: False):
        looks = 0
        while True:
            try:
                message = await self.client.get_iopub_msg(timeout=LOOK_SECONDS)
            except Empty:
                if has_left():
                    raise ClientLeft from None
                if not await self.manager.is_alive():
                    await self.restart()
                    yield {"type": "error", "name": "KernelDied", "value": DIED, "traceback": ""}
                    return
                looks += 1
                if looks % LOOKS_PER_KEEPALIVE == 0:
                    yield {"type": "keepalive"}
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return
            event = event_of(kind, content, message["header"]["date"])
            if event is not None:
                yield event

    async def interrupt(self, request):
        await self.manager.interrupt_kernel()
        try:
            async with asyncio.timeout(INTERRUPT_SECONDS):
                async for _ in self.events_of(request):
                    pass
        except TimeoutError:
            await self.restart()

    async def silently(self, code):
        request = self.client.execute(code, silent=True)
        async for _ in self.events_of(request):
            pass


def event_of(kind, content, date):
    if kind == "execute_input":
        return {"type": "number_of_executions", "execution_count": content["execution_count"]}
    if kind == "stream":
        return {"type": content["name"], "text": content["text"], "timestamp": date.isoformat()}
    if kind == "error":
        return {
            "type": "error",
            "name": content["ename"],
            "value": content["evalue"],
            "traceback": "\n".join(content["traceback"]),
        }
    if kind not in ("execute_result", "display_data"):
        return None
    result = {"type": "result", "is_main_result": kind == "execute_result"}
    extra = {}
    for mime, data in content["data"].items():
        if mime in NAMES:
            result[NAMES[mime]] = data
        else:
            extra[mime] = data
    if extra:
        result["extra"] = extra
    return result


class Contexts:
    def __init__(self):
        self.all = {}

    def find(self, name):
        if name not in self.all:
            raise Refused(404, f"no context {name}")
        return self.all[name]

    async def make(self, name, cwd):
        if len(self.all) >= CONTEXTS_MAX:
            raise Refused(429, f"at most {CONTEXTS_MAX} contexts")
        if not os.path.isdir(cwd):
            raise Refused(400, f"{cwd} is no directory")
        context = Context(name, cwd)
        self.all[name] = context
        try:
            await context.start()
        except BaseException:
            del self.all[name]
            raise
        return context


contexts = Contexts()


class Handler(tornado.web.RequestHandler):
    def body(self):
        try:
            body = json.loads(self.request.body or b"{}")
        except ValueError:
            raise Refused(400, "the body is no JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body is no object")
        return body

    def write_error(self, status_code, exc_info=None, **_):
        error = exc_info[1] if exc_info else None
        if isinstance(error, Refused):
            self.set_status(error.status)
        self.finish({"code": self.get_status(), "message": str(error) if error else "error"})

    def log_exception(self, kind, error, traceback):
        if not isinstance(error, (Refused, tornado.iostream.StreamClosedError)):
            super().log_exception(kind, error, traceback)


def view(context):
    return {"id": context.name, "language": "python", "cwd": context.cwd}


def text_in(body, name, fallback):
    value = body.get(name)
    if value is None:
        return fallback
    if not isinstance(value, str):
        raise Refused(400, f"{name} is a text")
    return value


def check_language(body):
    if text_in(body, "language", "python") not in ("python", "python3"):
        raise Refused(400, f"this sandbox runs python, not {body['language']}")


class Execute(Handler):
    def initialize(self):
        self.has_left = False

    async def post(self):
        body = self.body()
        check_language(body)
        code = text_in(body, "code", "")
        context = contexts.find(text_in(body, "context_id", DEFAULT))
        variables = body.get("env_vars") or {}
        if not isinstance(variables, dict) or not all(
            isinstance(text, str) for pair in variables.items() for text in pair
        ):
            raise Refused(400, "env_vars are texts by name")
        self.set_header("Content-Type", "application/x-ndjson")
        try:
            events = context.run(code, variables, lambda: self.has_left)
            async with contextlib.aclosing(events):
                async for event in events:
                    await self.send(event)
            await self.send({"type": "end_of_execution"})
        except (ClientLeft, tornado.iostream.StreamClosedError):
            pass

    async def send(self, event):
        self.write(json.dumps(event) + "\n")
        await self.flush()

    def on_connection_close(self):
        self.has_left = True


class List(Handler):
    def get(self):
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps([view(context) for context in contexts.all.values()]))

    async def post(self):
        body = self.body()
        check_language(body)
        self.finish(view(await contexts.make(str(uuid.uuid4()), text_in(body, "cwd", os.getcwd()))))


class One(Handler):
    async def delete(self, name):
        context = contexts.find(name)
        del contexts.all[name]
        await context.end()
        self.set_status(204)


class Restart(Handler):
    async def post(self, name):
        context = contexts.find(name)
        await context.restart()
        self.set_status(204)


class Health(Handler):
    def get(self):
        self.finish("ok")


async def exercise(context):
    """Loads what most code begins with, and takes the paths of a first execution, with a picture."""
    await context.silently("; ".join(f"__import__({name!r})" for name in LOADED_EARLY))
    async for _ in context.run("import matplotlib.pyplot as plt; plt.plot([1]); plt.show(); 1 + 1"):
        pass
    await context.silently("get_ipython().reset(new_session=True)")


async def main():
    context = await contexts.make(DEFAULT, os.getcwd())
    if socket.gethostname() == "template":
        await exercise(context)
    application = tornado.web.Application(
        [
            ("/execute", Execute),
            ("/contexts", List),
            ("/contexts/([^/]+)", One),
            ("/contexts/([^/]+)/restart", Restart),
            ("/health", Health),
        ]
    )
    application.listen(PORT, "127.0.0.1", max_body_size=BODY_BYTES_MAX)
    print(f"serves on port {PORT}", file=sys.stderr)
    await asyncio.Event().wait()


asyncio.run(main())
