//! Properties of windows over any conversation.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;

use inferkit_chatsession::{
    Budget, Entry, EntryId, Error, Message, NewSession, Recent, Role, Session, SessionId, Summary,
    ToolCall, UserId, Window,
};
use proptest::prelude::*;

fn recent(messages: &[(Message, u64)], system: u64, summary: Option<u64>) -> Recent {
    let new = NewSession::new(SessionId::new("s").unwrap(), UserId::new("u").unwrap());
    let session = Session::new(&new, system, 0);
    let summary = summary.map(|tokens| Summary::new("s", tokens, EntryId::ZERO, 1));
    let mut offset = 0;
    let entries = messages.iter().zip(1..).map(|((message, tokens), number)| {
        let id = EntryId::new(number, 0);
        let entry = Entry::new(id, None, offset, *tokens, message.clone());
        offset += tokens;
        entry
    });
    Recent::new(session, summary, entries.collect())
}

fn calls(ids: &[&str]) -> Message {
    Message::tool_calls(ids.iter().map(|id| ToolCall::new(*id, "f", "{}")))
}

fn texts(window: &Window) -> Vec<String> {
    let text = |entry: &Entry| match &entry.message {
        message if message.role == Role::Tool => {
            format!("={}", message.tool_call_id.clone().unwrap())
        }
        message if !message.tool_calls.is_empty() => {
            message.tool_calls.iter().map(|call| format!("?{}", call.id)).collect()
        }
        message => message.content.to_text(),
    };
    window.entries.iter().map(text).collect()
}

fn shown(messages: &[Message], tokens: u64) -> Result<Vec<String>, Error> {
    let messages: Vec<_> = messages.iter().map(|message| (message.clone(), 10)).collect();
    let budget = Budget::new(tokens).with_step(0);
    Window::new(&recent(&messages, 0, None), budget).map(|window| texts(&window))
}

#[test]
fn a_call_and_its_results_stand_or_fall_together() {
    let talk = [
        Message::user("a"),
        calls(&["1", "2"]),
        Message::tool("1", "x"),
        Message::tool("2", "x"),
        Message::assistant("b"),
    ];
    assert_eq!(shown(&talk, 50).unwrap(), ["a", "?1?2", "=1", "=2", "b"]);
    assert_eq!(shown(&talk, 40).unwrap(), ["?1?2", "=1", "=2", "b"]);
    for tokens in [39, 30, 20, 10] {
        assert_eq!(shown(&talk, tokens).unwrap(), ["b"], "{tokens}");
    }
    // The newest messages are a pair that does not fit.
    let error = shown(&talk[..4], 29).unwrap_err();
    assert!(matches!(error, Error::BudgetTooSmall { needed: 30, budget: 29, .. }), "{error:?}");
}

#[test]
fn what_providers_refuse_is_left_out() {
    let orphans = [Message::tool("9", "x"), Message::user("a"), calls(&["1"]), Message::user("b")];
    assert_eq!(shown(&orphans, 100).unwrap(), ["a", "b"]);
    let half = [calls(&["1", "2"]), Message::tool("2", "x"), Message::user("b")];
    assert_eq!(shown(&half, 100).unwrap(), ["?2", "=2", "b"]);
    let pending = [Message::user("a"), calls(&["1", "2"]), Message::tool("2", "x")];
    assert_eq!(shown(&pending, 100).unwrap(), ["a", "?1?2", "=2"], "1 may still come");
    let late = [calls(&["1"]), Message::user("b"), Message::tool("1", "x")];
    assert_eq!(shown(&late, 100).unwrap(), ["?1", "=1", "b"], "results follow their calls");
    let said = [calls(&["1"]), Message::user("b")];
    let said = [
        Message::assistant("let me see").with_tool_calls(said[0].tool_calls.clone()),
        said[1].clone(),
    ];
    assert_eq!(shown(&said, 100).unwrap(), ["let me see", "b"], "the text stays");
}

#[test]
fn an_orphan_does_not_hold_the_window_back() {
    let mut talk = vec![calls(&["never answered"])];
    talk.extend((0..9).map(|number| Message::user(number.to_string())));
    assert_eq!(shown(&talk, 20).unwrap(), ["7", "8"]);
}

#[test]
fn ids_that_are_used_again_are_told_apart() {
    let turn = |text: &str| [calls(&["call_0"]), Message::tool("call_0", "x"), Message::user(text)];
    let talk = [turn("a"), turn("b")].concat();
    assert_eq!(shown(&talk, 30).unwrap(), ["?call_0", "=call_0", "b"]);
    assert_eq!(shown(&talk, 40).unwrap(), ["a", "?call_0", "=call_0", "b"]);
}

#[test]
fn an_empty_session_has_a_window() {
    let window = Window::new(&recent(&[], 5, Some(4)), Budget::new(9)).unwrap();
    assert_eq!((window.tokens, window.entries.len()), (9, 0));
    assert!(Window::new(&recent(&[], 5, Some(5)), Budget::new(9)).is_err());
}

/// Conversations with calls, results, orphans and ids used again.
fn conversation() -> impl Strategy<Value = Vec<(Message, u64)>> {
    let id = prop_oneof![Just("a"), Just("b"), Just("c")];
    let message = prop_oneof![
        3 => Just(Message::user("u")),
        2 => Just(Message::assistant("m")),
        2 => prop::collection::vec(id.clone(), 1..3).prop_map(|mut ids| {
            ids.sort_unstable();
            ids.dedup();
            calls(&ids)
        }),
        3 => id.prop_map(|id| Message::tool(id, "x")),
    ];
    prop::collection::vec((message, 1_u64..40), 0..60)
}

proptest! {
    #[test]
    fn windows_keep_their_promises(
        messages in conversation(),
        system in 0_u64..20,
        summary in prop::option::of(0_u64..20),
        tokens in 0_u64..600,
        step in 0_u64..200,
    ) {
        let recent = recent(&messages, system, summary);
        let budget = Budget::new(tokens).with_step(step);
        let window = match Window::new(&recent, budget) {
            Ok(window) => window,
            Err(Error::BudgetTooSmall { needed, budget, .. }) => {
                prop_assert!(budget < needed);
                // And what is said to be needed is enough.
                let enough = Window::new(&recent, Budget::new(needed).with_step(step));
                prop_assert!(enough.is_ok());
                return Ok(());
            }
            Err(error) => panic!("{error:?}"),
        };
        prop_assert!(window.tokens <= tokens);
        // A part of the conversation's end, in order, and the newest message that can be shown.
        let ids: Vec<EntryId> = window.entries.iter().map(|entry| entry.id).collect();
        let speaks = |entry: &&Entry| entry.message.role != Role::Tool;
        prop_assert!(window.entries.iter().filter(speaks).map(|entry| entry.id).is_sorted());
        let from = recent.entries.get(window.dropped).map(|entry| entry.id);
        prop_assert!(ids.iter().all(|id| from.is_some_and(|from| from <= *id)));
        for entry in recent.entries.iter().skip(window.dropped) {
            let plain = entry.message.role != Role::Tool && entry.message.tool_calls.is_empty();
            prop_assert!(!plain || ids.contains(&entry.id), "only orphans are left out");
        }
        // No result without its call, no call without its result but the newest.
        let mut open: HashMap<&str, bool> = HashMap::new();
        let last_speaker = window.entries.iter().rposition(|entry| entry.message.role != Role::Tool);
        for (index, entry) in window.entries.iter().enumerate() {
            if let Some(id) = &entry.message.tool_call_id {
                prop_assert!(open.remove(id.as_str()).is_some(), "an orphan result");
            }
            if Some(index) == last_speaker {
                prop_assert!(open.is_empty(), "a call without a result");
            }
            for call in &entry.message.tool_calls {
                prop_assert!(open.insert(&call.id, true).is_none(), "an unanswered call");
            }
        }
        // No pair was cut: a result at the window's beginning has its call in the window, or nowhere before.
        let whole = Window::new(&recent, Budget::new(1 << 40)).unwrap();
        for entry in whole.entries.iter().filter(|entry| entry.message.role == Role::Tool) {
            if from.is_some_and(|from| from <= entry.id) {
                prop_assert!(ids.contains(&entry.id), "a result lost its call");
            }
        }
    }

    #[test]
    fn a_window_moves_in_steps_only(lengths in prop::collection::vec(1_u64..30, 50..200)) {
        let messages: Vec<_> = lengths.iter().map(|tokens| (Message::user("x"), *tokens)).collect();
        let (mut starts, mut before) = (Vec::new(), None);
        for end in 1..=messages.len() {
            let recent = recent(&messages[..end], 0, None);
            let window = Window::new(&recent, Budget::new(400).with_step(100)).unwrap();
            let start = window.entries[0].id;
            prop_assert!(before <= Some(start), "it never moves back");
            if before != Some(start) {
                starts.push(recent.entries[window.dropped].offset);
            }
            before = Some(start);
            prop_assert!(window.dropped == 0 || 400 - 100 - 60 <= window.tokens, "nor further than it must");
        }
        let total: u64 = lengths.iter().sum();
        prop_assert!(starts.len() as u64 <= total / 100 + 1, "{} moves for {total} tokens", starts.len());
    }
}
