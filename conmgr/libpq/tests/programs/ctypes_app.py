# SPDX-License-Identifier: Apache-2.0
"""libpq by ctypes, which passes by whoever stands before its functions."""
import ctypes

pq = ctypes.CDLL("libpq.so.5")
pq.PQconnectdb.restype = pq.PQexec.restype = ctypes.c_void_p
pq.PQgetvalue.restype = pq.PQerrorMessage.restype = ctypes.c_char_p
conn = ctypes.c_void_p(pq.PQconnectdb(b""))
result = ctypes.c_void_p(pq.PQexec(conn, b"SELECT 'rows' || count(*) FROM generate_series(1, 3)"))
print((pq.PQgetvalue(result, 0, 0) or pq.PQerrorMessage(conn)).decode())
pq.PQreset(conn)
pq.PQfinish(conn)
