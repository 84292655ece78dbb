use super::*;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::wire::closed_line;

fn usage() -> Usage {
    Arc::new(Memory::new(&Limits::default())).connection(None)
}

fn outbox() -> Arc<Outbox> {
    Arc::new(Outbox::new(1000, 8, usage()))
}

fn text(outbox: &Outbox) -> Option<String> {
    match outbox.try_next(10_000)? {
        Batch::Write(bytes) => {
            outbox.wrote(bytes.len());
            Some(String::from_utf8(bytes.to_vec()).unwrap())
        }
        other => Some(format!("{other:?}")),
    }
}

fn line(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn answer(slot: ReplySlot, data: &'static str) {
    slot.fill(&Ok(line(data)));
}

fn last(reason: CloseReason) -> String {
    String::from_utf8(closed_line(reason).to_vec()).unwrap()
}

fn sent(text: &str) -> String {
    format!("{{\"result\":\"ok\",\"data\":{text}}}\n")
}

#[test]
fn answers_keep_their_order_and_events_stay_behind_them() {
    let outbox = outbox();
    let first = outbox.reserve(None, 0);
    let second = outbox.reserve(None, 0);
    outbox.offer(1, &line("event "));
    answer(second, "two");
    assert_eq!(text(&outbox), None);
    answer(first, "one");
    let expected = sent("one") + &sent("two") + "event ";
    assert_eq!(text(&outbox), Some(expected));
    assert_eq!(outbox.lock().pending_bytes, 0);
}

#[test]
fn a_full_outbox_goes_on_from_the_journal_without_loss_or_doubling() {
    let outbox = outbox();
    let long = Bytes::from(vec![b'x'; 600]);
    outbox.offer(1, &long);
    outbox.offer(2, &long);
    outbox.offer(3, &long);
    assert!(text(&outbox).is_some());
    assert_eq!(text(&outbox).as_deref(), Some("CatchUp(2)"));
    outbox.offer(4, &long);
    assert!(!outbox.caught_up_to(3));
    assert_eq!(text(&outbox).as_deref(), Some("CatchUp(4)"));
    assert!(
        outbox.caught_up_to(5),
        "the journal may be ahead of the hub"
    );
    outbox.offer(5, &long);
    assert_eq!(text(&outbox), None, "5 was pushed from the journal");
    outbox.offer(6, &line("six"));
    assert_eq!(text(&outbox).as_deref(), Some("six"));
}

#[tokio::test]
async fn an_event_that_is_larger_than_the_buffer_wakes_the_writer() {
    let outbox = outbox();
    let waiting = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.next_batch(10_000).await }
    });
    tokio::task::yield_now().await;
    let offered = outbox.offer(1, &Bytes::from(vec![b'x'; 2000]));
    assert_eq!((offered.kept, offered.wake), (false, true));
    outbox.wake();
    assert_eq!(waiting.await.unwrap(), Batch::CatchUp(1));
}

#[test]
fn what_is_not_stored_is_dropped_when_there_is_no_room() {
    let outbox = outbox();
    outbox.offer(1, &Bytes::from(vec![b'x'; 900]));
    outbox.offer_ephemeral(&Bytes::from(vec![b'y'; 200]));
    assert_eq!(text(&outbox).map(|text| text.len()), Some(900));
    outbox.offer_ephemeral(&line("z"));
    assert_eq!(text(&outbox).as_deref(), Some("z"));
}

#[test]
fn the_end_of_input_lets_answers_out_first() {
    let outbox = outbox();
    let slot = outbox.reserve(None, 0);
    outbox.end_input();
    assert_eq!(text(&outbox), None);
    answer(slot, "one");
    assert_eq!(text(&outbox), Some(sent("one")));
    assert_eq!(text(&outbox).as_deref(), Some("Drained"));
}

#[test]
fn a_lost_answer_is_internal_with_its_tid_and_does_not_hold_up_the_next() {
    let outbox = outbox();
    drop(outbox.reserve(Some(line("7")), 0));
    answer(outbox.reserve(None, 0), "two");
    outbox.close(CloseReason::Shutdown);
    outbox.push(line("late"));
    let all = text(&outbox).unwrap();
    let (lost, rest) = all.split_once('\n').unwrap();
    assert!(lost.starts_with(r#"{"result":"error","data":{"code":"internal","#));
    assert!(lost.ends_with(r#","tid":7}"#), "{lost}");
    assert_eq!(rest, sent("two") + &last(CloseReason::Shutdown));
    assert_eq!(text(&outbox).as_deref(), Some("Close"));
}

#[tokio::test]
async fn a_connection_that_closes_unanswered_waits_for_no_answer_and_takes_none() {
    let outbox = outbox();
    answer(outbox.reserve(None, 0), "one");
    let in_doubt = outbox.reserve(None, 0);
    outbox.close_unanswered(CloseReason::Unavailable);
    outbox.all_answered().await;
    assert_eq!(
        text(&outbox),
        Some(sent("one") + &last(CloseReason::Unavailable))
    );
    drop(in_doubt);
    assert_eq!(text(&outbox).as_deref(), Some("Close"));
    assert_eq!(outbox.lock().pending_bytes, 0);
}

#[tokio::test]
async fn requests_under_way_are_bounded_in_bytes() {
    let outbox = outbox();
    let slots: Vec<ReplySlot> = (0..2).map(|_| outbox.reserve(None, 600)).collect();
    let reader = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.room().await }
    });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    for slot in slots {
        slot.fill(&Ok(line("{}")));
    }
    assert!(text(&outbox).is_some());
    assert!(reader.await.unwrap());
}

#[tokio::test]
async fn a_page_waits_for_memory_until_others_have_given_some_back() {
    let limits = Limits {
        max_memory_bytes_pending: 10_000,
        ..Limits::default()
    };
    let memory = Arc::new(Memory::new(&limits));
    let [first, second] =
        [(); 2].map(|()| Arc::new(Outbox::new(100_000, 8, memory.connection(None))));
    assert!(first.keep_room(8000).await);
    let waiting = tokio::spawn({
        let second = Arc::clone(&second);
        async move { second.keep_room(8000).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    first.keep_no_room();
    assert!(waiting.await.unwrap());
    // One that is to be closed does not wait.
    first.close(CloseReason::Shutdown);
    assert!(!first.keep_room(8000).await);
    drop((first, second));
    assert_eq!(memory.bytes(), 0);
}
