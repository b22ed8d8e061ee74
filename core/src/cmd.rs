use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::Script;
use crate::keys::Key;

/// One command for the server: a name and binary arguments.
///
/// The arguments lie in one buffer, so a command of any width costs one or two allocations.
/// `Debug` prints the name and the number of arguments, never the arguments themselves.
///
/// # Examples
///
/// ```
/// use inferkit_core::Cmd;
///
/// let get = Cmd::new("GET").key("user:1").readonly();
/// assert_eq!(get.name(), "GET");
/// assert_eq!(get.routing_key(), Some(&b"user:1"[..]));
/// ```
#[derive(Clone)]
pub struct Cmd {
    data: Vec<u8>,
    ends: SmallVec<[u32; 6]>,
    key: Option<u32>,
    // Boxed: it is rare, and a command is moved often.
    block: Option<Box<Duration>>,
    readonly: bool,
    idempotent: bool,
    script: Option<&'static Script>,
}

impl Cmd {
    /// Starts a command with its name, such as `GET`.
    #[must_use]
    #[inline]
    pub fn new(name: &str) -> Self {
        Self::with_capacity(name, 64)
    }

    /// Starts a command whose arguments will take about `bytes` in all.
    #[must_use]
    #[inline]
    pub fn with_capacity(name: &str, bytes: usize) -> Self {
        let mut cmd = Self {
            data: Vec::with_capacity(name.len() + bytes),
            ends: SmallVec::new(),
            key: None,
            block: None,
            readonly: false,
            idempotent: false,
            script: None,
        };
        cmd.push(name);
        cmd
    }

    /// Starts a call of `script` with its `keys`; the arguments follow with [`Cmd::arg`].
    ///
    /// The command is an `EVALSHA`.
    /// [`DriverExt::query`](crate::DriverExt::query) and [`DriverExt::run`](crate::DriverExt::run) repeat it as
    /// `EVAL` where the server does not know the script.
    #[must_use]
    pub fn eval<K: ToArg>(script: &'static Script, keys: &[K]) -> Self {
        let mut cmd = Self::with_capacity("EVALSHA", 192).arg(script.sha1()).arg(keys.len());
        for key in keys {
            cmd = cmd.key(key);
        }
        cmd.script = Some(script);
        cmd
    }

    /// Appends an argument.
    #[must_use]
    #[inline]
    pub fn arg(mut self, value: impl ToArg) -> Self {
        self.push(value);
        self
    }

    /// Appends several arguments.
    #[must_use]
    pub fn args<A: ToArg>(mut self, values: impl IntoIterator<Item = A>) -> Self {
        for value in values {
            self.push(value);
        }
        self
    }

    /// Appends a key; the first one decides which node of a cluster runs the command.
    #[must_use]
    #[inline]
    pub fn key(mut self, key: impl ToArg) -> Self {
        if self.key.is_none() {
            self.key = u32::try_from(self.ends.len()).ok();
        }
        self.push(key);
        self
    }

    /// Marks a command that waits at the server for up to `wait`, such as `XREAD BLOCK`.
    ///
    /// It must not share a connection: only drivers made by [`Connect`](crate::Connect) accept it.
    /// A `wait` of zero means for ever, as it does to the server; a connection that goes silent meanwhile is then never
    /// noticed, so better wait in rounds.
    #[must_use]
    pub fn blocking(mut self, wait: Duration) -> Self {
        self.block = Some(Box::new(wait));
        self
    }

    /// Marks a command that changes nothing: it can always be repeated.
    #[must_use]
    #[inline]
    pub fn readonly(mut self) -> Self {
        self.readonly = true;
        self
    }

    /// Marks a write that may safely run twice, because it carries a request id or sets an absolute value.
    #[must_use]
    #[inline]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Returns the number of bytes of the name and all arguments.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// Returns the command's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.get(0).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// Returns the name and the arguments, in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|index| self.get(index).unwrap_or_default())
    }

    /// Returns how many parts the command has, its name included.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns `false`: a command has at least its name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the number of bytes of all parts.
    #[must_use]
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.data.len()
    }

    /// Returns the key that decides the cluster node, if the command has one.
    #[must_use]
    #[inline]
    pub fn routing_key(&self) -> Option<&[u8]> {
        self.key.and_then(|index| self.get(index as usize))
    }

    /// Returns the position of [`Cmd::routing_key`] among the parts; the name is 0.
    #[must_use]
    pub fn routing_index(&self) -> Option<usize> {
        self.key.map(|index| index as usize)
    }

    /// Returns the cluster slot of [`Cmd::routing_key`].
    #[must_use]
    pub fn slot(&self) -> Option<u16> {
        self.routing_key().map(crate::keys::slot)
    }

    /// Returns how long the command may wait at the server, if it blocks.
    #[must_use]
    #[inline]
    pub fn blocking_for(&self) -> Option<Duration> {
        self.block.as_deref().copied()
    }

    /// Tells whether the command changes nothing.
    #[must_use]
    #[inline]
    pub fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// Tells whether the command may run twice without harm.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.readonly || self.idempotent
    }

    /// Returns the script that the command calls, if any.
    #[must_use]
    #[inline]
    pub fn script(&self) -> Option<&'static Script> {
        self.script
    }

    /// Returns the same script call with the source in place of its digest.
    pub(crate) fn with_source(&self) -> Self {
        let Some(script) = self.script else { return self.clone() };
        let mut cmd = Self::with_capacity("EVAL", self.data.len() + script.source().len());
        cmd.push(script.source());
        for part in self.iter().skip(2) {
            cmd.push(part);
        }
        Self {
            key: self.key,
            block: self.block.clone(),
            readonly: self.readonly,
            idempotent: self.idempotent,
            script: self.script,
            ..cmd
        }
    }

    #[inline]
    fn push(&mut self, value: impl ToArg) {
        value.write(&mut self.data);
        // A part that ends past 4 GiB cannot be sent: the server's limit for one request is 1 GiB.
        self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        self.data.get(start..end)
    }
}

impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cmd")
            .field("name", &self.name())
            .field("args", &self.len().saturating_sub(1))
            .field("bytes", &self.byte_len())
            .finish_non_exhaustive()
    }
}

/// What can be an argument of a [`Cmd`]: text, bytes and numbers (written as decimal text).
pub trait ToArg {
    /// Appends the argument's bytes to `out`.
    fn write(&self, out: &mut Vec<u8>);
}

impl<T: ToArg + ?Sized> ToArg for &T {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

macro_rules! bytes_arg {
    ($($type:ty => $bytes:expr),* $(,)?) => {$(
        impl ToArg for $type {
            fn write(&self, out: &mut Vec<u8>) {
                let bytes: fn(&$type) -> &[u8] = $bytes;
                out.extend_from_slice(bytes(self));
            }
        }
    )*};
}
bytes_arg! {
    str => |value| value.as_bytes(),
    String => |value| value.as_bytes(),
    [u8] => |value| value,
    Vec<u8> => |value| value,
    Bytes => |value| value,
    Key => |value| value.as_bytes(),
}

impl<const N: usize> ToArg for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

macro_rules! number_arg {
    ($($type:ty),*) => {$(
        impl ToArg for $type {
            fn write(&self, out: &mut Vec<u8>) {
                use std::io::Write as _;
                // Writing to a vector cannot fail.
                let _ = write!(out, "{self}");
            }
        }
    )*};
}
number_arg!(u8, u16, u32, u64, usize, i32, i64, f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    static SCRIPT: Script = Script::new("return 1");

    #[test]
    fn parts_come_back_as_they_went_in() {
        let cmd = Cmd::new("SET").key("k").arg(&b"\0\xff"[..]).arg(7_u64).arg("");
        let parts: Vec<&[u8]> = cmd.iter().collect();
        assert_eq!(parts, [&b"SET"[..], b"k", b"\0\xff", b"7", b""]);
        assert_eq!(cmd.routing_index(), Some(1));
    }

    #[test]
    fn the_source_replaces_the_digest_and_nothing_else() {
        let cmd = Cmd::eval(&SCRIPT, &["a", "b"]).arg("x").idempotent();
        let source = cmd.with_source();
        let parts: Vec<&[u8]> = source.iter().collect();
        assert_eq!(parts, [&b"EVAL"[..], b"return 1", b"2", b"a", b"b", b"x"]);
        assert_eq!(source.routing_key(), Some(&b"a"[..]));
        assert!(source.is_idempotent());
    }

    #[test]
    fn debug_shows_no_argument() {
        let text = format!("{:?}", Cmd::new("AUTH").arg("s3cret"));
        assert!(text.contains("AUTH") && !text.contains("s3cret"), "{text}");
    }
}
