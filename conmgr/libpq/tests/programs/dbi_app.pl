# SPDX-License-Identifier: Apache-2.0
# perl with DBD::Pg.
use strict;
use warnings;
use DBI;

$| = 1;
my $mode = shift;
my $dbh = DBI->connect('dbi:Pg:', '', '', { RaiseError => 0, PrintError => 0, AutoCommit => $mode ne 'intrans' })
    or die "no connection: $DBI::errstr";
$dbh->do('SELECT 1') if $mode eq 'intrans';
<STDIN> if $mode ne 'blocked';
my $done = $dbh->do($mode eq 'blocked' ? 'SELECT pg_sleep(600)' : 'SELECT 1');
die 'still open' if defined $done || $dbh->ping;
my ($text) = split /\n/, $dbh->errstr // 'no text';
print 'broken: SQLSTATE ', $dbh->state, ": $text\n";
