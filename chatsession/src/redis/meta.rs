use bytes::Bytes;
use inferkit_core::Reply;

use crate::form::unknown_version;
use crate::{EntryId, Error, Found, NewSession, Result, Session, SessionId, Summary, UserId};

/// The fields of a session's hash that make a [`Session`], in the order in which [`found`] reads them.
pub(super) const FIELDS: [&str; 23] = [
    "v", "erased", "user", "model", "system", "systok", "metadata", "created", "last", "n", "tok",
    "leaf", "upto", "summary", "sumtok", "sumn", "trimmed", "base", "basetok", "basen", "sv",
    "archived", "drafts",
];

pub(super) const DAMAGED: Error = Error::Corrupt { what: "the hash" };

/// Reads what `HMGET` says of a session.
pub(super) fn found(id: &SessionId, reply: Vec<Reply>) -> Result<Found> {
    let mut fields = reply.into_iter().map(|field| match field {
        Reply::Bulk(bytes) => Some(bytes),
        _ => None,
    });
    let mut next = || fields.next().flatten();
    let (version, erased) = (next(), next());
    let Some(version) = version else {
        return Ok(if erased.is_some() { Found::Erased } else { Found::Gone });
    };
    if version[..] != *b"1" {
        return Err(unknown_version(&version).unwrap_or(DAMAGED));
    }
    let user = UserId::new(text(next())?.ok_or(DAMAGED)?).map_err(|_| DAMAGED)?;
    let mut new = NewSession::new(id.clone(), user);
    new.model = text(next())?;
    new.system = text(next())?;
    let system_tokens = number(next())?;
    new.metadata = text(next())?;
    let mut session = Session::new(&new, system_tokens, number(next())?);
    session.last = place(next())?;
    session.messages = number(next())?;
    session.tokens = number(next())?;
    session.leaf = place(next())?;
    session.summary = summary([next(), next(), next(), next()])?;
    session.base = summary([next(), next(), next(), next()])?;
    session.summary_version = number(next())?;
    session.archived = place(next())?;
    session.drafts = number(next())?;
    Ok(Found::Live(session))
}

fn summary([upto, summary, tokens, messages]: [Option<Bytes>; 4]) -> Result<Option<Summary>> {
    let Some(upto) = place(upto)? else { return Ok(None) };
    let text = text(summary)?.ok_or(DAMAGED)?;
    Ok(Some(Summary::new(text, number(tokens)?, upto, number(messages)?)))
}

fn text(field: Option<Bytes>) -> Result<Option<String>> {
    field.map(|field| String::from_utf8(field.into()).map_err(|_| DAMAGED)).transpose()
}

/// A number that is zero while it is not there.
fn number(field: Option<Bytes>) -> Result<u64> {
    let Some(field) = field else { return Ok(0) };
    str::from_utf8(&field).ok().and_then(|text| text.parse().ok()).ok_or(DAMAGED)
}

/// A message's id; not there or empty is none.
fn place(field: Option<Bytes>) -> Result<Option<EntryId>> {
    match text(field)? {
        Some(id) if !id.is_empty() => id.parse().map(Some).map_err(|_| DAMAGED),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..30),
        ) {
            let reply = values.into_iter().map(|value| value.map_or(Reply::Nil, |v| Reply::Bulk(v.into())));
            let mut reply: Vec<Reply> = reply.collect();
            let id = SessionId::new("s").unwrap();
            let _ = found(&id, reply.clone());
            if let Some(version) = reply.first_mut() {
                *version = Reply::Bulk(Bytes::from_static(b"1"));
            }
            let _ = found(&id, reply);
        }
    }
}
