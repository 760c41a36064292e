// SPDX-License-Identifier: Apache-2.0

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The program of cmd/e2e/drivers for pgjdbc; its doc.go says what it does. */
public class Pgjdbc implements Runnable {
    private final String name, port, sslmode, options;

    private Pgjdbc(String[] fields) {
        name = fields[0];
        port = fields[1];
        sslmode = fields[2];
        options = fields[3];
    }

    public static void main(String[] args) {
        for (String arg : args) {
            new Thread(new Pgjdbc(arg.split(",", -1))).start();
        }
    }

    private void tell(String event, String detail) {
        String line = name + "\t" + event + "\t" + detail.replaceAll("\\s+", " ") + "\n";
        synchronized (System.out) {
            System.out.print(line);
            System.out.flush();
        }
    }

    private Connection connect() throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("DRIVER_USER"));
        p.setProperty("password", System.getenv("DRIVER_PASSWORD"));
        p.setProperty("ApplicationName", "pgjdbc/" + name);
        p.setProperty("prepareThreshold", "1");
        p.setProperty("connectTimeout", "10");
        if (!sslmode.isEmpty()) {
            p.setProperty("sslmode", sslmode);
            p.setProperty("sslrootcert", System.getenv("DRIVER_ROOTCERT"));
        }
        if (!options.isEmpty()) {
            p.setProperty("options", options);
        }
        return DriverManager.getConnection("jdbc:postgresql://localhost:" + port + "/postgres", p);
    }

    private static String value(Connection conn, String sql) throws SQLException {
        try (Statement st = conn.createStatement(); ResultSet rs = st.executeQuery(sql)) {
            rs.next();
            return rs.getString(1);
        }
    }

    private static void expect(String what, String got, String want) {
        if (!want.equals(got)) {
            throw new IllegalStateException(what + ": " + got + ", want " + want);
        }
    }

    private static void prepared(Connection conn) throws SQLException {
        try (PreparedStatement st = conn.prepareStatement("SELECT ?::int + 1")) {
            for (int i = 0; i < 10; i++) {
                st.setInt(1, i);
                try (ResultSet rs = st.executeQuery()) {
                    rs.next();
                    expect("prepared statement", rs.getString(1), String.valueOf(i + 1));
                }
            }
        }
    }

    private static void cancelled(Connection conn) throws SQLException, InterruptedException {
        CountDownLatch over = new CountDownLatch(1);
        try (Statement st = conn.createStatement()) {
            Thread canceller = new Thread(() -> keepCancelling(st, over));
            canceller.start();
            try {
                st.execute("SELECT pg_sleep(60)");
                throw new IllegalStateException("the statement was not cancelled");
            } catch (SQLException e) {
                expect("the cancelled statement", e.getSQLState(), "57014");
            } finally {
                over.countDown();
                canceller.join();
            }
        }
    }

    private static void keepCancelling(Statement st, CountDownLatch over) {
        try {
            for (long pause = 200; !over.await(pause, TimeUnit.MILLISECONDS); pause = 1000) {
                st.cancel();
            }
        } catch (SQLException | InterruptedException e) {
            System.err.println(e);
        }
    }

    private String again() throws SQLException, InterruptedException {
        for (long end = System.nanoTime() + 30_000_000_000L; ; Thread.sleep(50)) {
            try (Connection conn = connect()) {
                return value(conn, "SELECT host(inet_server_addr())");
            } catch (SQLException e) {
                if (System.nanoTime() > end) {
                    throw e;
                }
            }
        }
    }

    private void work() throws SQLException, InterruptedException {
        Connection conn = connect();
        if (!options.isEmpty()) {
            tell("standby", value(conn, "SELECT host(inet_server_addr()) || ' ' || pg_is_in_recovery()"));
            conn.close();
            return;
        }
        expect("query", value(conn, "SELECT 6 * 7"), "42");
        prepared(conn);
        cancelled(conn);
        expect("query after the cancelled one", value(conn, "SELECT 'alive'"), "alive");
        tell("ready", "");
        try {
            value(conn, "SELECT pg_sleep(600)");
            throw new IllegalStateException("the long statement ended without an error");
        } catch (SQLException e) {
            tell("lost", e.getSQLState() + " " + e.getMessage());
        }
        tell("again", again());
    }

    @Override
    public void run() {
        try {
            work();
        } catch (Exception e) {
            tell("failed", e.toString());
        }
    }
}
