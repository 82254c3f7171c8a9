// JDBC: BEGIN sent with the first statement, named from the fifth run, portals with row limits, batches.
import java.io.StringReader;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Jdbc {
    interface Habit { void run() throws Exception; }

    static Connection connect(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        for (int at = 0; at < settings.length; at += 2) properties.setProperty(settings[at], settings[at + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE"), properties);
    }

    static void same(Object got, Object expected) {
        if (!expected.equals(got)) throw new AssertionError("got " + got + ", expected " + expected);
    }

    static String one(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(text)) {
            return rows.next() ? rows.getString(1) : null;
        }
    }

    static String value(Connection connection, long key) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("select v from kv where k = ?")) {
            statement.setLong(1, key);
            try (ResultSet rows = statement.executeQuery()) {
                return rows.next() ? rows.getString(1) : null;
            }
        }
    }

    static void habit(String name, Habit habit) {
        try {
            habit.run();
            System.out.println("ok\t" + name);
        } catch (Throwable error) {
            int line = 0;
            for (StackTraceElement frame : error.getStackTrace())
                if (frame.getFileName() != null && frame.getFileName().equals("Jdbc.java")) line = frame.getLineNumber();
            System.out.println("no\t" + name + "\tline " + line + ": " + String.valueOf(error.getMessage()).replaceAll("\\s+", " "));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Connection connection = connect();
        habit("unnamed_then_named", () -> {
            try (PreparedStatement statement = connection.prepareStatement("select k, v from kv where k = ?")) {
                for (int key = 1; key < 60; key++) {
                    statement.setLong(1, key);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        same(rows.getLong(1), (long) key);
                        same(rows.getString(2), "v" + key);
                    }
                }
            }
        });
        habit("small_integer_keys", () -> {
            try (PreparedStatement statement = connection.prepareStatement("select v from kv where k = ?")) {
                for (int key = 1; key < 20; key++) {
                    statement.setInt(1, key);
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        same(rows.getString(1), "v" + key);
                    }
                }
            }
        });
        habit("blocks", () -> {
            connection.setAutoCommit(false);
            for (int round = 0; round < 8; round++) {
                same(value(connection, 40), "v40");
                connection.commit();
                same(value(connection, 41), "v41");
                connection.rollback();
            }
            connection.setAutoCommit(true);
        });
        habit("fetch_size", () -> {
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(10);
                int seen = 0;
                try (ResultSet rows = statement.executeQuery("select generate_series(1, 95)")) {
                    while (rows.next()) same(rows.getInt(1), ++seen);
                }
                same(seen, 95);
            } finally {
                connection.rollback();
                connection.setAutoCommit(true);
            }
        });
        habit("fetch_size_by_key", () -> {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement("select k + g from kv, generate_series(1, 50) g where k = ?")) {
                statement.setFetchSize(7);
                statement.setLong(1, 3);
                int seen = 0;
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) seen++;
                }
                same(seen, 50);
            } finally {
                connection.rollback();
                connection.setAutoCommit(true);
            }
        });
        habit("batch_on_one_shard", () -> {
            connection.setAutoCommit(false);
            try (PreparedStatement statement = connection.prepareStatement("insert into notes values (?, ?)")) {
                for (int id = 400; id < 450; id++) {
                    statement.setInt(1, id);
                    statement.setString(2, "batch");
                    statement.addBatch();
                }
                same(statement.executeBatch().length, 50);
            } finally {
                connection.rollback();
                connection.setAutoCommit(true);
            }
        });
        habit("batch_that_fails", () -> {
            try (PreparedStatement statement = connection.prepareStatement("insert into notes values (?, ?)")) {
                for (int id : new int[] {460, 460}) {
                    statement.setInt(1, id);
                    statement.setString(2, "batch");
                    statement.addBatch();
                }
                statement.executeBatch();
                throw new AssertionError("no error came");
            } catch (BatchUpdateException error) {
                same(error.getSQLState(), "23505");
            }
            same(one(connection, "select count(*) from notes where id = 460"), "0");
        });
        habit("generated_keys", () -> {
            try (PreparedStatement statement = connection.prepareStatement("insert into kv values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                statement.setLong(1, 9501);
                statement.setString(2, "jdbc");
                same(statement.executeUpdate(), 1);
                try (ResultSet rows = statement.getGeneratedKeys()) {
                    rows.next();
                    same(rows.getLong(1), 9501L);
                }
            }
            try (Statement statement = connection.createStatement()) {
                same(statement.executeUpdate("delete from kv where k = 9501"), 1);
            }
        });
        habit("copy_manager", () -> {
            CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
            StringBuilder text = new StringBuilder();
            for (int key = 9600; key < 9650; key++) text.append(key).append("\tcopied\n");
            same(copy.copyIn("copy kv (k, v) from stdin", new StringReader(text.toString())), 50L);
            try (Statement statement = connection.createStatement()) {
                for (int key = 9600; key < 9650; key++) same(statement.executeUpdate("delete from kv where k = " + key), 1);
            }
        });
        habit("savepoint_for_each_statement", () -> {
            try (Connection own = connect("autosave", "always")) {
                own.setAutoCommit(false);
                same(value(own, 5), "v5");
                try {
                    one(own, "select 1 / (k - k) from kv where k = 5");
                    throw new AssertionError("no error came");
                } catch (SQLException error) {
                    same(error.getSQLState(), "22012");
                }
                same(value(own, 5), "v5");
                own.commit();
            }
        });
        habit("startup_parameters", () -> {
            try (Connection own = connect("options", "-c statement_timeout=65s", "ApplicationName", "jdbc habit", "currentSchema", "public")) {
                same(one(own, "show statement_timeout"), "65s");
                same(value(own, 33), "v33");
                same(one(own, "show application_name"), "jdbc habit");
            }
        });
        habit("isolation_and_read_only", () -> {
            try (Connection own = connect()) {
                own.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
                own.setReadOnly(true);
                own.setAutoCommit(false);
                same(value(own, 34), "v34");
                try (Statement statement = own.createStatement()) {
                    statement.executeUpdate("delete from kv where k = 34");
                    throw new AssertionError("a read-only block wrote");
                } catch (SQLException error) {
                    same(error.getSQLState(), "25006");
                }
                own.rollback();
            }
        });
        habit("cancel", () -> {
            try (Statement statement = connection.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("select pg_sleep(30)");
                throw new AssertionError("it was not cancelled");
            } catch (SQLException error) {
                same(error.getSQLState(), "57014");
            }
            same(value(connection, 35), "v35");
        });
        habit("metadata", () -> {
            try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "kv", null)) {
                rows.next();
                same(rows.getString("COLUMN_NAME"), "k");
            }
        });
        connection.close();
    }
}
