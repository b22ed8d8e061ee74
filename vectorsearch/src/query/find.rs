use std::time::Duration;

use inferkit_core::Cmd;

use super::{add_fields, append_end, append_params, append_return, field_of, filter_text};
use crate::{Error, FieldKind, Filter, Result, Schema};

/// How far into the results a page can start: the server's own limit, at its default.
pub const MAX_OFFSET: usize = 1_000_000;

/// A query without a vector: the documents that a [`Filter`] considers, page by page.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Filter, Find, Order};
///
/// let cheapest = Find::new(Filter::tag("color", "red")?)
///     .sorted_by("price", Order::Ascending)?
///     .page(20, 10)?
///     .returning(["title", "price"])?;
/// # let _ = cheapest;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Find {
    filter: Filter,
    offset: usize,
    limit: usize,
    sort: Option<(String, Order)>,
    scored: bool,
    returning: Vec<String>,
    timeout: Option<Duration>,
}

/// Which comes first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Order {
    /// The smallest.
    Ascending,
    /// The largest.
    Descending,
}

impl Find {
    /// Asks for the documents that `filter` considers; ten of them unless [`page`](Self::page) says otherwise.
    pub fn new(filter: Filter) -> Self {
        Self {
            filter,
            offset: 0,
            limit: 10,
            sort: None,
            scored: false,
            returning: Vec::new(),
            timeout: None,
        }
    }

    /// Sets the page: `limit` documents (1 to 10 000) after the first `offset` ones (up to [`MAX_OFFSET`]).
    ///
    /// Pages are stable only under [`sorted_by`](Self::sorted_by), and while nothing is written.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidParameter`] if one is out of range.
    pub fn page(mut self, offset: usize, limit: usize) -> Result<Self> {
        crate::schema::check_range("LIMIT", limit, 1, super::MAX_K)?;
        crate::schema::check_range("offset", offset, 0, MAX_OFFSET)?;
        (self.offset, self.limit) = (offset, limit);
        Ok(self)
    }

    /// Sorts by a NUMERIC, TAG or TEXT field of the schema; documents without it come last.
    ///
    /// It is quick where the field is declared sortable; else the server loads the field of every match.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if it is not a field name.
    pub fn sorted_by(mut self, field: impl Into<String>, order: Order) -> Result<Self> {
        let field = field.into();
        crate::schema::check_field_name(&field)?;
        self.sort = Some((field, order));
        Ok(self)
    }

    /// Asks for the relevance score of each document: how well the text of the filter matches it.
    ///
    /// Scores are comparable within one answer only: each engine has its own formula.
    /// With all of them a document with more of the words comes before one with fewer, and rare words count more than
    /// common ones, where the texts are of a length and the words stand together.
    /// Without [`sorted_by`](Self::sorted_by) the most relevant document comes first.
    pub fn scored(mut self) -> Self {
        self.scored = true;
        self
    }

    /// Adds fields of the hash that the records shall carry, part of the schema or not; by default they carry none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if one is not a field name.
    pub fn returning<F: Into<String>>(
        mut self,
        fields: impl IntoIterator<Item = F>,
    ) -> Result<Self> {
        add_fields(&mut self.returning, fields)?;
        Ok(self)
    }

    /// Sets the time that the server may take; see [`Knn::with_timeout`](crate::Knn::with_timeout).
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Returns the `FT.SEARCH` command; its reply reads as a [`Page`](crate::Page).
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`] and [`Error::FieldKindMismatch`] if the query does not fit the schema.
    pub fn to_cmd(&self, schema: &Schema) -> Result<Cmd> {
        let (text, values) = filter_text(&self.filter, schema)?;
        let mut cmd = Cmd::with_capacity("FT.SEARCH", 256).key(schema.index()).arg(text);
        if self.scored {
            cmd = cmd.arg("WITHSCORES");
        }
        cmd = append_params(cmd, None, &values);
        cmd = append_return(cmd, None, &self.returning);
        if let Some((field, order)) = &self.sort {
            if let FieldKind::Vector { .. } = field_of(schema, field)? {
                let expected = "NUMERIC, TAG or TEXT";
                return Err(Error::FieldKindMismatch { field: field.clone(), expected });
            }
            let order = if *order == Order::Ascending { "ASC" } else { "DESC" };
            cmd = cmd.arg("SORTBY").arg(field).arg(order);
        }
        Ok(append_end(cmd.arg("LIMIT").arg(self.offset).arg(self.limit), self.timeout))
    }

    /// The command that only counts.
    pub(crate) fn count_cmd(filter: &Filter, schema: &Schema) -> Result<Cmd> {
        let (text, values) = filter_text(filter, schema)?;
        let cmd =
            Cmd::with_capacity("FT.SEARCH", 256).key(schema.index()).arg(text).arg("NOCONTENT");
        Ok(append_end(append_params(cmd, None, &values).args(["LIMIT", "0", "0"]), None))
    }

    /// The command that hands out the keys of all matches by a cursor.
    pub(crate) fn keys_cmd(
        filter: &Filter,
        schema: &Schema,
        keys_at_once: usize,
        cursor_millis: u32,
    ) -> Result<Cmd> {
        let (text, values) = filter_text(filter, schema)?;
        let cmd = Cmd::with_capacity("FT.AGGREGATE", 256).key(schema.index()).arg(text);
        let cmd = append_params(cmd.args(["LOAD", "1", "@__key"]), None, &values);
        let cmd =
            cmd.args(["WITHCURSOR", "COUNT"]).arg(keys_at_once).arg("MAXIDLE").arg(cursor_millis);
        // A time limit would end the cursor as if there were no more.
        Ok(cmd.args(["TIMEOUT", "0", "DIALECT", "2"]))
    }

    pub(crate) fn with_filter(&self, filter: Filter) -> Self {
        Self { filter, ..self.clone() }
    }

    /// Returns which documents are asked for.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Returns the page: how many documents are left out before it, and how many it has at most.
    #[must_use]
    pub fn window(&self) -> (usize, usize) {
        (self.offset, self.limit)
    }

    /// Returns by which field the documents are sorted, if they are.
    #[must_use]
    pub fn sort(&self) -> Option<(&str, Order)> {
        self.sort.as_ref().map(|(field, order)| (&**field, *order))
    }

    /// Tells whether relevance scores are asked for.
    #[must_use]
    pub fn is_scored(&self) -> bool {
        self.scored
    }

    /// Returns the fields that records shall carry.
    #[must_use]
    pub fn returned(&self) -> &[String] {
        &self.returning
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}
