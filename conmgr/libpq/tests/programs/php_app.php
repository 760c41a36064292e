<?php
// SPDX-License-Identifier: Apache-2.0
// PHP, whose modules pass by whoever stands before the functions of libpq.
$conn = pg_connect('') or die("no connection\n");
echo pg_fetch_result(pg_query($conn, "SELECT 'rows' || count(*) FROM generate_series(1, 3)"), 0, 0), "\n";
pg_close($conn);
