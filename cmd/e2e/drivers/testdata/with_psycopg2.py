# SPDX-License-Identifier: Apache-2.0
#
# The program of cmd/e2e/drivers for psycopg2; its doc.go says what it does.

import os
import sys
import threading
import time

import psycopg2

lock = threading.Lock()


def tell(case, event, detail=""):
    with lock:
        print(case, event, " ".join(str(detail).split()), sep="\t", flush=True)


def connect(name, port, sslmode, options):
    return psycopg2.connect(
        host="localhost", port=port, dbname="postgres", sslmode=sslmode or "prefer",
        user=os.environ["DRIVER_USER"], password=os.environ["DRIVER_PASSWORD"],
        sslrootcert=os.environ["DRIVER_ROOTCERT"], options=options or None,
        application_name="psycopg2/" + name, connect_timeout=10)


def value(conn, sql, args=None):
    with conn.cursor() as cur:
        cur.execute(sql, args)
        return cur.fetchone()[0]


def expect(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: {got!r}, want {want!r}")


def cancelled(conn):
    over = threading.Event()

    def keep_cancelling():
        pause = 0.2
        while not over.wait(pause):
            conn.cancel()
            pause = 1

    thread = threading.Thread(target=keep_cancelling)
    thread.start()
    try:
        value(conn, "SELECT pg_sleep(60)")
    except psycopg2.extensions.QueryCanceledError:
        return
    finally:
        over.set()
        thread.join()
    raise AssertionError("the statement was not cancelled")


def again(case):
    end = time.monotonic() + 30
    while True:
        try:
            conn = connect(*case)
            return value(conn, "SELECT host(inet_server_addr())")
        except psycopg2.Error:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def work(case):
    conn = connect(*case)
    conn.autocommit = True
    if case[3]:
        row = "SELECT host(inet_server_addr()) || ' ' || pg_is_in_recovery()"
        tell(case[0], "standby", value(conn, row))
        return
    expect("query", value(conn, "SELECT %s * 7", (6,)), 42)
    with conn.cursor() as cur:
        cur.execute("PREPARE p AS SELECT $1::int + 1")
    for i in range(10):
        expect("prepared statement", value(conn, "EXECUTE p(%s)", (i,)), i + 1)
    cancelled(conn)
    expect("query after the cancelled one", value(conn, "SELECT 'alive'"), "alive")
    tell(case[0], "ready")
    try:
        value(conn, "SELECT pg_sleep(600)")
        raise AssertionError("the long statement ended without an error")
    except psycopg2.Error as e:
        tell(case[0], "lost", f"{e.pgcode} {e}")
    tell(case[0], "again", again(case))


def play(case):
    try:
        work(case)
    except Exception as e:
        tell(case[0], "failed", f"{type(e).__name__}: {e}")


threads = [threading.Thread(target=play, args=(arg.split(","),)) for arg in sys.argv[1:]]
for t in threads:
    t.start()
for t in threads:
    t.join()
