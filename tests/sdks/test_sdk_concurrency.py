"""Apps that call models from threads, executors, tasks and event loops of their own."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sdk_kit import need

openai = need("openai")

QUESTIONS = ["one", "two", "three", "four", "five"]


def ask(client, question):
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}]).choices[0].message.content


async def aask(client, question):
    answer = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": question}])
    return answer.choices[0].message.content


def own_threads(_):
    said = {}
    with openai.OpenAI() as client:
        threads = [threading.Thread(target=lambda q=q: said.update({q: ask(client, q)})) for q in QUESTIONS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return said


def executor(_):
    with openai.OpenAI() as client, ThreadPoolExecutor(2) as pool:
        return dict(zip(QUESTIONS, pool.map(lambda q: ask(client, q), QUESTIONS), strict=True))


def executor_of_executors(_):
    def inner(question):
        with ThreadPoolExecutor(1) as pool, openai.OpenAI() as client:
            return pool.submit(ask, client, question).result()

    with ThreadPoolExecutor(3) as pool:
        return {q: future.result() for q, future in [(q, pool.submit(inner, q)) for q in QUESTIONS]}


def to_thread(_):
    async def inside():
        with openai.OpenAI() as client:
            return dict(zip(QUESTIONS, await asyncio.gather(*(asyncio.to_thread(ask, client, q) for q in QUESTIONS)), strict=True))

    return asyncio.run(inside())


def task_group(_):
    async def inside():
        async with openai.AsyncOpenAI() as client, asyncio.TaskGroup() as group:
            tasks = {q: group.create_task(aask(client, q)) for q in QUESTIONS}
        return {q: task.result() for q, task in tasks.items()}

    return asyncio.run(inside())


def loop_in_a_thread(_):
    said = {}
    thread = threading.Thread(target=lambda: said.update(task_group(_)))
    thread.start()
    thread.join()
    return said


def loop_in_an_executor(_):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(task_group, _).result()


def called_from_a_thread(_):
    """A loop on a thread of its own that coroutines are handed to, as sync front ends of async apps do it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:

        async def inside():
            async with openai.AsyncOpenAI() as client:
                return {q: await aask(client, q) for q in QUESTIONS}

        return asyncio.run_coroutine_threadsafe(inside(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


APPS = [own_threads, executor, executor_of_executors, to_thread, task_group, loop_in_a_thread, loop_in_an_executor, called_from_a_thread]


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.__name__)
def test_every_call_belongs_to_the_test(suite, app):
    live = suite.check(app, *(other for other in APPS if other is not app), requests=len(QUESTIONS))
    assert live == dict.fromkeys(QUESTIONS, "Within 30 days, grüße.")
    assert len(suite.calls) == len(QUESTIONS)
