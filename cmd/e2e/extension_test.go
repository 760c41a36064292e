// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgconmgr/pgconmgr/agent/agenttest"
)

// portSecond is for the heartbeats of the second instance of a host.
const portSecond = 27555

// site is a host with a primary and its standby, an agent beside each: with the role
// of role.sql, as a user without any right on the host, let in by peer.
type site struct {
	*testing.T
	client, other, db *agenttest.Host
	primary, standby  *agenttest.Postgres
	agent             *agenttest.Process // of the primary
}

func newSite(t *testing.T) *site {
	lab := agenttest.MustLab(t, "client", "other", "db")
	s := &site{T: t, client: lab.Host("client"), other: lab.Host("other"), db: lab.Host("db")}
	bin := agenttest.MustExtension(t, s.db.WatchdogRunDir())
	s.primary = agenttest.MustPostgres(t, s.db, agenttest.PostgresOptions{Bin: bin, Conf: agentConf(portHeartbeat)})
	agenttest.MustExec(t, s.primary, "CREATE EXTENSION watchdog; CREATE ROLE app LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor")
	_, err := s.primary.Script(t.Context(), "../../watchdog/role.sql")
	s.must(err)
	s.standby = agenttest.MustPostgres(t, s.db, agenttest.PostgresOptions{
		Bin: bin, Name: "second", Port: 5433, StreamFrom: s.primary, Conf: agentConf(portSecond),
	})
	s.must(s.standby.WaitStreaming(t.Context()))
	for _, p := range []*agenttest.Postgres{s.primary, s.standby} {
		s.must(errors.Join(p.LetIn("nobody", "pgwatchdog"), p.Reload()))
		agent, err := p.StartWatchdog(t.Context(), agenttest.WatchdogOptions{
			User: "nobody", DSN: strings.Replace(p.DSN(), "user=postgres", "user=pgwatchdog", 1),
		})
		s.must(err)
		if p == s.primary {
			s.agent = agent
		}
	}
	return s
}

func agentConf(port int) map[string]string {
	return map[string]string{"watchdog.port": fmt.Sprint(port), "watchdog.min_heartbeat_interval": "10ms"}
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// startConmgr starts one for some of the instances, with its application port.
func (s *site) startConmgr(h *agenttest.Host, port int, interval, timeout time.Duration, instances ...*agenttest.Postgres) *agenttest.Conmgr {
	s.Helper()
	params := map[string]string{"port": fmt.Sprint(port), "heartbeat_interval": millis(interval), "heartbeat_timeout": millis(timeout)}
	for i, p := range instances {
		if p == s.standby {
			params[fmt.Sprintf("watchdog_port%d", i)] = fmt.Sprint(portSecond)
		}
	}
	cm, err := h.NewConmgr(agenttest.ConmgrOptions{Name: fmt.Sprint("conmgr-", port), Instances: instances, Params: params})
	s.must(err)
	s.must(cm.Start(s.Context()))
	return cm
}

// view is what an instance shows, one line for each row.
func (s *site) view(p *agenttest.Postgres, sql string) string {
	s.Helper()
	return strings.Join(agenttest.MustQuery(s, p, sql), "\n")
}

const (
	viewSessions = `SELECT concat_ws(' ', conmgr_addr, heartbeat_interval, heartbeat_timeout, heartbeat_interval_ms, state, transport, kills)
FROM pgx_stat_watchdog ORDER BY conmgr_addr`
	// Of a session that goes well, and has just been heard.
	viewFigures = `SELECT count(*)::text FROM pgx_stat_watchdog WHERE rtt_ms > 0 AND received > 2 AND sent > 2 AND lost = 0 AND loss_percent = 0
AND armed_since BETWEEN now() - interval '1 min' AND now() AND last_heard BETWEEN as_of - interval '1 s' AND as_of
AND as_of BETWEEN now() - interval '3 s' AND clock_timestamp() AND NOT protected AND NOT authenticated`
)

// TestExtension sees from SQL what real agents know and do: each instance of a host
// its own, on a standby as well; and with the extension a superuser's session of a
// lost host ends, although neither the agent's role nor its user could do it.
func TestExtension(t *testing.T) {
	t.Parallel()
	agenttest.NeedLab(t)
	agenttest.NeedPostgres(t)
	s := newSite(t)
	s.startConmgr(s.client, portConsole, 100*time.Millisecond, 1500*time.Millisecond, s.primary, s.standby)
	s.startConmgr(s.other, portConsole, 1001*time.Millisecond, 10*time.Second, s.standby)
	first := s.client.Addr4.String() + " 1 2 100 up tcp enabled"
	both := first + "\n" + s.other.Addr4.String() + " 2 10 1001 up tcp enabled"
	agenttest.Eventually(t, generous, "the primary shows its conmgr", func() bool { return s.view(s.primary, viewSessions) == first })
	agenttest.Eventually(t, generous, "the standby shows its own two", func() bool { return s.view(s.standby, viewSessions) == both })
	agenttest.Eventually(t, generous, "figures", func() bool {
		return s.view(s.primary, viewFigures) == "1" && s.view(s.standby, viewFigures) == "2"
	})
	s.checkPort()
	s.checkFreshness()
	s.checkKill()
	s.checkAbsence()
}

// checkPort: conmgr_port is where the heartbeats come from.
func (s *site) checkPort() {
	s.Helper()
	port := s.view(s.primary, "SELECT conmgr_port::text FROM pgx_stat_watchdog")
	log, err := s.agent.Log()
	s.must(err)
	if remote := "remote=" + s.client.Addr4.String() + ":" + port + " "; !strings.Contains(log, remote) {
		s.Errorf("conmgr_port %s: no session %sin the agent's log", port, remote)
	}
}

// checkFreshness: what changes is seen within a second.
func (s *site) checkFreshness() {
	s.Helper()
	before := s.view(s.primary, "SELECT kills FROM pgx_stat_watchdog")
	s.must(s.primary.SetConf(map[string]string{"watchdog.dry_run": "on"}))
	s.must(s.primary.Reload())
	agenttest.Eventually(s, generous, "dry run is shown", func() bool { return s.view(s.primary, "SELECT kills FROM pgx_stat_watchdog") == "dry run" })
	s.must(s.primary.SetConf(map[string]string{"watchdog.dry_run": "off"}))
	s.must(s.primary.Reload())
	agenttest.Eventually(s, generous, "kills are shown again", func() bool { return s.view(s.primary, "SELECT kills FROM pgx_stat_watchdog") == before })
	start := time.Now()
	cm := s.startConmgr(s.other, portConsole+1, time.Second, 10*time.Second, s.primary)
	agenttest.Eventually(s, generous, "a new conmgr is shown", func() bool { return s.view(s.primary, "SELECT count(*)::text FROM pgx_stat_watchdog") == "2" })
	came := time.Since(start)
	start = time.Now()
	_, err := cm.Process.Kill(s.Context())
	s.must(err)
	agenttest.Eventually(s, generous, "a dead conmgr is not shown", func() bool { return s.view(s.primary, "SELECT count(*)::text FROM pgx_stat_watchdog") == "1" })
	s.Logf("a conmgr is shown %v after its start, not shown %v after its end", came.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}

// checkKill: the client vanishes with sessions of a superuser and of another user.
func (s *site) checkKill() {
	s.Helper()
	var pids []string
	for _, user := range []string{"postgres", "app"} {
		conn := s.connect(s.client, user)
		pids = append(pids, fmt.Sprint(conn.PgConn().PID()))
	}
	stranger := s.connect(s.other, "postgres")
	agenttest.MustFault(s, s.client.Cut)
	list := strings.Join(pids, ",")
	agenttest.Eventually(s, generous, "the sessions of the lost host are gone", func() bool {
		return s.view(s.primary, "SELECT count(*)::text FROM pg_stat_activity WHERE pid IN ("+list+")") == "0"
	})
	if _, err := stranger.Exec(s.Context(), "SELECT"); err != nil {
		s.Errorf("a superuser's session of another host: %v", err)
	}
	agenttest.Eventually(s, generous, "the event", func() bool {
		return s.view(s.primary, "SELECT concat_ws(' ', client_addr, outcome, cause, reason, backends, ended, survivors, dry_run) FROM pgx_watchdog_events WHERE pids @> ARRAY["+list+"]") ==
			s.client.Addr4.String()+" done timeout timeout 2 2 0 f"
	})
	if got := s.view(s.primary, viewSessions); got != "" {
		s.Errorf("still shown: %s", got)
	}
	// Nobody was connected to the standby from there, as its own record says.
	agenttest.Eventually(s, generous, "the standby's event", func() bool {
		return s.view(s.standby, "SELECT concat_ws(' ', client_addr, outcome, backends) FROM pgx_watchdog_events WHERE outcome IS NOT NULL") ==
			s.client.Addr4.String()+" done 0"
	})
	agenttest.MustFault(s, s.client.Heal)
}

// connect opens a session on the primary, past conmgr.
func (s *site) connect(from *agenttest.Host, user string) *pgx.Conn {
	s.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=%v port=%d user=%s dbname=postgres", s.db.Addr4, s.primary.Port, user))
	s.must(err)
	cfg.DialFunc = from.Dial
	conn, err := pgx.ConnectConfig(s.Context(), cfg)
	s.must(err)
	s.Cleanup(func() { closeSoon(conn) })
	return conn
}

// checkAbsence: without its agent an instance shows nothing and says why; the other
// instance of the host goes on. What the agent did is still known.
func (s *site) checkAbsence() {
	s.Helper()
	s.must(s.agent.Stop(s.Context()))
	notice := make(chan string, 10)
	cfg, err := pgx.ParseConfig(strings.Replace(s.primary.DSN(), "user=postgres", "user=monitor", 1))
	s.must(err)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice <- n.Message }
	conn, err := pgx.ConnectConfig(s.Context(), cfg)
	s.must(err)
	defer conn.Close(context.WithoutCancel(s.Context()))
	for sql, want := range map[string]bool{"SELECT count(*) > 0 FROM pgx_stat_watchdog": false, "SELECT count(*) > 0 FROM pgx_watchdog_events": true} {
		var any bool
		s.must(conn.QueryRow(s.Context(), sql).Scan(&any))
		if any != want || len(notice) != 1 || !strings.Contains(<-notice, "has told nothing") {
			s.Errorf("%s: %v, %d further notices", sql, any, len(notice))
		}
	}
	if got := s.view(s.standby, "SELECT count(*)::text FROM pgx_stat_watchdog WHERE conmgr_addr = '"+s.other.Addr4.String()+"'"); got != "1" {
		s.Errorf("the other instance of the host shows %s of one", got)
	}
	agenttest.MustExec(s, s.primary, "DROP EXTENSION watchdog")
	agenttest.Eventually(s, generous, "dropped on the standby", func() bool {
		return s.view(s.standby, "SELECT (to_regclass('pgx_stat_watchdog') IS NULL)::text") == "true"
	})
}
