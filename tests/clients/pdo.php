<?php
// PDO: every prepare is a named statement that is freed by DEALLOCATE, in blocks and failed blocks too.
declare(strict_types=1);

$dsn = sprintf('pgsql:host=%s;port=%s;dbname=%s', getenv('PGHOST'), getenv('PGPORT'), getenv('PGDATABASE'));
function connect(array $options = []): PDO {
    global $dsn;
    return new PDO($dsn, getenv('PGUSER'), getenv('PGPASSWORD'), [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION] + $options);
}
function same(mixed $got, mixed $expected): void {
    if ($got !== $expected) {
        throw new RuntimeException('got ' . json_encode($got) . ', expected ' . json_encode($expected));
    }
}
function one(PDO $pdo, string $text, array $values = []): mixed {
    $statement = $pdo->prepare($text);
    $statement->execute($values);
    return $statement->fetchColumn();
}

$pdo = connect();
$habits = [
    'prepare_and_free' => function () use ($pdo) {
        for ($key = 1; $key < 60; $key++) {
            same(one($pdo, 'select v from kv where k = ?', [$key]), "v$key");
        }
    },
    'free_in_a_block' => function () use ($pdo) {
        $pdo->beginTransaction();
        same(one($pdo, 'select v from kv where k = ?', [7]), 'v7');
        same(one($pdo, 'select k from kv where k = ?', [7]), 7);
        $pdo->commit();
        same(one($pdo, 'select v from kv where k = ?', [8]), 'v8');
    },
    'free_in_a_failed_block' => function () use ($pdo) {
        $pdo->beginTransaction();
        try {
            one($pdo, 'select 1 / (k - k) from kv where k = ?', [7]);
            throw new RuntimeException('no error came');
        } catch (PDOException $error) {
            same($error->getCode(), '22012');
        }
        $pdo->rollBack();
        same(one($pdo, 'select v from kv where k = ?', [9]), 'v9');
    },
    'same_names_on_two_clients' => function () {
        $one = connect();
        $two = connect();
        $first = $one->prepare('select v from kv where k = ?');
        $second = $two->prepare("select k || '!' from kv where k = ?");
        foreach ([11, 12, 13] as $key) {
            $first->execute([$key]);
            same($first->fetchColumn(), "v$key");
            $second->execute([$key]);
            same($second->fetchColumn(), "$key!");
        }
    },
    'settings_by_prepared_statements' => function () {
        $own = connect();
        foreach (["set names 'utf8'", "set time zone 'Asia/Tokyo'", 'set search_path to "public"', "set application_name to 'laravel'"] as $text) {
            $own->prepare($text)->execute();
        }
        for ($key = 1; $key < 12; $key++) {
            same(one($own, 'select v from kv where k = ?', [$key]), "v$key");
        }
        same(one($own, 'show timezone'), 'Asia/Tokyo');
        same(one($own, 'show application_name'), 'laravel');
    },
    'emulated_prepares' => function () {
        $own = connect([PDO::ATTR_EMULATE_PREPARES => true]);
        same(one($own, 'select v from kv where k = ?', [21]), 'v21');
    },
    'unnamed_prepares' => function () {
        $own = connect([PDO::PGSQL_ATTR_DISABLE_PREPARES => true]);
        for ($key = 1; $key < 20; $key++) {
            same(one($own, 'select v from kv where k = ?', [$key]), "v$key");
        }
    },
    'exec_and_count' => function () use ($pdo) {
        same($pdo->exec("insert into kv values (9301, 'pdo')"), 1);
        same($pdo->exec('delete from kv where k = 9301'), 1);
    },
    'copy_from_array' => function () use ($pdo) {
        $lines = array_map(fn ($key) => "$key\tcopied\n", range(9400, 9450));
        same($pdo->pgsqlCopyFromArray('kv', $lines), true);
        foreach (range(9400, 9450) as $key) {
            same($pdo->exec("delete from kv where k = $key"), 1);
        }
    },
    'duplicate_key' => function () use ($pdo) {
        try {
            $pdo->prepare('insert into kv values (?, ?)')->execute([1, 'again']);
            throw new RuntimeException('no error came');
        } catch (PDOException $error) {
            same($error->getCode(), '23505');
        }
    },
    'scrollable_cursor' => function () use ($pdo) {
        $pdo->beginTransaction();
        $statement = $pdo->prepare('select v from kv where k = 14', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $statement->execute();
        same($statement->fetch(PDO::FETCH_NUM), ['v14']);
        $statement = null;
        $pdo->commit();
    },
    'persistent_connection' => function () {
        foreach ([1, 2] as $round) {
            $own = connect([PDO::ATTR_PERSISTENT => true]);
            same(one($own, 'select v from kv where k = ?', [30 + $round]), 'v' . (30 + $round));
            $own = null;
        }
    },
    'notifications' => function () use ($pdo) {
        $own = connect();
        $own->exec('listen pdo_habit');
        $pdo->exec("notify pdo_habit, 'hi'");
        $heard = $own->pgsqlGetNotify(PDO::FETCH_ASSOC, 10000);
        same($heard['payload'] ?? null, 'hi');
    },
];
foreach ($habits as $name => $habit) {
    try {
        $habit();
        echo "ok\t$name\n";
    } catch (Throwable $error) {
        echo "no\t$name\tline {$error->getLine()}: ", preg_replace('/\s+/', ' ', $error->getMessage()), "\n";
    }
}
