//! Bodies are packed on disk and come back as they were: heads, pieces, reports, and what an older version wrote.

use super::*;
use crate::mail::body::Spilled;

fn page(octets: usize) -> Vec<u8> {
    let mut page: Vec<u8> =
        (0..).take(octets / 8 + 1).flat_map(|n| format!("<td>{n}</td>\r\n").into_bytes()).collect();
    page.truncate(octets);
    page
}

fn beside(bench: &Bench) -> Connection {
    Connection::open(bench.settings().data_dir.join("postroad.db")).unwrap()
}

fn number(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn head_of(store: &Store, id: MessageId) -> Result<Option<bytes::Bytes>, StoreError> {
    store.load(vec![id]).await.remove(0).map(|found| found.map(|message| message.body.head))
}

#[tokio::test]
async fn a_body_takes_less_of_the_disk_and_is_loaded_as_it_came() {
    let bench = Bench::new();
    let store = bench.open();
    let (small, large) = (bench.with_body(page(4_000)), bench.with_body(page(60_000)));
    for message in [&small, &large] {
        accept_one(&store, bench.waiting(message)).await;
        assert_eq!(head_of(&store, message.id).await.unwrap().unwrap(), message.body.head);
    }
    let conn = beside(&bench);
    let length = |id: MessageId| {
        number(&conn, &format!("SELECT length(bytes) FROM bodies WHERE message = {}", id.number()))
    };
    assert_eq!(length(small.id), 4_000);
    assert!(length(large.id) < 20_000, "{}", length(large.id));
    assert_eq!(store.queue_octets(), 64_000, "the queue counts mail, not what it takes of the disk");
}

#[tokio::test]
async fn pieces_and_a_large_head_come_back_as_they_were() {
    let bench = Bench::new();
    let store = bench.open();
    let mut message = Message::clone(&bench.with_body(page(256 * 1024)));
    let pieces = [page(256 * 1024), vec![0; 256 * 1024], b"the end\r\n".to_vec()];
    let mut rest = Spilled { message: message.id, chunks: 0, octets: 0 };
    for piece in &pieces {
        store.spill(message.id, rest.chunks, piece.clone().into()).await.unwrap();
        rest = Spilled { chunks: rest.chunks + 1, octets: rest.octets + piece.len() as u64, ..rest };
    }
    message.body.rest = Some(rest);
    message.body.facts.size_octets = message.body.size_octets();
    let message = Arc::new(message);
    accept_one(&store, bench.waiting(&message)).await;
    store.close().await;
    let store = bench.open();
    assert_eq!(head_of(&store, message.id).await.unwrap().unwrap(), message.body.head);
    for (n, piece) in (0..).zip(&pieces) {
        assert_eq!(store.chunk(message.id, n).await.unwrap(), piece);
    }
    let octets = number(&beside(&bench), "SELECT sum(length(bytes)) FROM body_chunks");
    assert!(octets < 150_000, "{octets}");
    // A second writing of a piece takes the place of the first, also where that was packed.
    store.spill(message.id, 1, b"short".to_vec().into()).await.unwrap();
    assert_eq!(store.chunk(message.id, 1).await.unwrap(), b"short"[..]);
}

#[tokio::test]
async fn what_is_taken_once_or_owed_is_packed_too() {
    let bench = Bench::new();
    let store = bench.open();
    let key = crate::mail::OnceKey {
        scope: "app".into(),
        key: "k".into(),
        kept: Duration::from_secs(60),
        outlives_removal: true,
    };
    let once = bench.with_body(page(60_000));
    store.accept_once(bench.waiting(&once), key).await.unwrap();
    assert_eq!(head_of(&store, once.id).await.unwrap().unwrap(), once.body.head);
    assert_eq!(number(&beside(&bench), "SELECT count(*) FROM bodies WHERE unpacked = 60000"), 1);
}

/// As the version before wrote it.
#[tokio::test]
async fn bodies_of_an_older_schema_are_read_on() {
    let bench = Bench::new();
    let dir = bench.settings().data_dir;
    std::fs::create_dir(&dir).unwrap();
    let conn = Connection::open(dir.join("postroad.db")).unwrap();
    let before = 13;
    for sql in &schema::MIGRATIONS[..before] {
        conn.execute_batch(sql).unwrap();
    }
    conn.pragma_update(None, "application_id", schema::APPLICATION_ID).unwrap();
    conn.pragma_update(None, "user_version", before as i64).unwrap();
    let (head, piece) = (page(60_000), page(100_000));
    let message = bench.with_body(head.clone());
    let id = message.id.number();
    conn.execute("INSERT INTO lanes VALUES (1, 'transactional', 0, '', '', '')", []).unwrap();
    conn.execute(
        "INSERT INTO messages (id, lane, sender, recipients, body_kind, smtputf8, size, longest_line, eight_bit, chunks,
             chunk_octets, accepted_at, expires_at, source)
         VALUES (?1, 1, '', 1, 0, 0, 160000, 20, 0, 1, 100000, ?2, ?2, ?3)",
        rusqlite::params![id, START.millis(), row::source_column(&message.source)],
    )
    .unwrap();
    conn.execute("INSERT INTO bodies (message, bytes) VALUES (?1, ?2)", rusqlite::params![id, head]).unwrap();
    conn.execute(
        "INSERT INTO body_chunks (message, n, bytes) VALUES (?1, 0, ?2)",
        rusqlite::params![id, piece],
    )
    .unwrap();
    drop(conn);
    let store = bench.open();
    assert_eq!(head_of(&store, message.id).await.unwrap().unwrap(), head);
    assert_eq!(store.chunk(message.id, 0).await.unwrap(), piece);
}

#[tokio::test]
async fn a_row_that_does_not_unpack_is_told_with_its_message_and_others_are_read_on() {
    let bench = Bench::new();
    let store = bench.open();
    let (broken, sound) = (bench.with_body(page(60_000)), bench.with_body(page(50_000)));
    for message in [&broken, &sound] {
        accept_one(&store, bench.waiting(message)).await;
        store.spill(message.id, 0, page(100_000).into()).await.unwrap();
    }
    let break_it = |set: &str| {
        for table in ["bodies", "body_chunks"] {
            let sql = format!("UPDATE {table} SET {set} WHERE message = {}", broken.id.number());
            assert_eq!(beside(&bench).execute(&sql, []).unwrap(), 1);
        }
    };
    for set in ["unpacked = unpacked + 1", "unpacked = 1 << 50", "bytes = zeroblob(4000)", "bytes = x''"] {
        break_it(set);
        let mut loaded = store.load(vec![broken.id, sound.id]).await;
        let other = loaded.remove(1).unwrap().unwrap();
        assert_eq!(other.body.head, sound.body.head);
        let told = [loaded.remove(0).unwrap_err(), store.chunk(broken.id, 0).await.unwrap_err()];
        for error in told.map(|error| error.to_string()) {
            assert!(
                error.contains(&broken.id.to_string()) && error.contains("cannot be read back"),
                "{error}"
            );
        }
        assert!(store.reported(broken.id).await.is_err());
    }
    store.close().await;
}
