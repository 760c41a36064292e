# SPDX-License-Identifier: Apache-2.0
"""psycopg2, from Debian or any other libpq that its module finds."""
import sys

import psycopg2

mode = sys.argv[1]
conn = psycopg2.connect("")
conn.autocommit = mode != "intrans"
cursor = conn.cursor()
if mode == "intrans":
    cursor.execute("SELECT 1")
if mode != "blocked":
    sys.stdin.readline()
try:
    cursor.execute("SELECT pg_sleep(600)" if mode == "blocked" else "SELECT 1")
    sys.exit("still open")
except psycopg2.OperationalError as e:
    state = "broken" if conn.closed else "still open"
    print(f"{state}: SQLSTATE {e.pgcode}: {str(e).splitlines()[0]}", flush=True)
