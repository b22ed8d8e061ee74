//! The named values of a struct, through serde.

use std::fmt;

use serde::ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use serde::{Serialize, ser};

use crate::value::Value;

/// What serde could not make a value of.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

impl ser::Error for Problem {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self(problem.to_string())
    }
}

pub(crate) fn of<T: Serialize + ?Sized>(values: &T) -> Result<Vec<(String, Value)>, Problem> {
    values.serialize(Fields { fields: Vec::new(), key: None })
}

struct Fields {
    fields: Vec<(String, Value)>,
    key: Option<String>,
}

/// Refuses what is not named here.
macro_rules! refuse {
    ($what:literal: $($method:ident($($type:ty),*) -> $ok:ty),* $(,)?) => {$(
        fn $method(self, $(_: $type),*) -> Result<$ok, Problem> {
            Err(Problem::custom($what))
        }
    )*};
}

/// Takes what a value is made of as it is.
macro_rules! take {
    ($($method:ident($type:ty)),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<Value, Problem> {
            Ok(value.into())
        }
    )*};
}

type No<T> = Impossible<T, Problem>;
type Named = Vec<(String, Value)>;

impl Serializer for Fields {
    type Ok = Named;
    type Error = Problem;
    type SerializeSeq = No<Named>;
    type SerializeTuple = No<Named>;
    type SerializeTupleStruct = No<Named>;
    type SerializeTupleVariant = No<Named>;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = No<Named>;

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Problem> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Problem> {
        Ok(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Named, Problem> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Named, Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Named, Problem> {
        Err(Problem::custom("a row is a struct or a map of values"))
    }

    refuse! { "a row is a struct or a map of values":
        serialize_bool(bool) -> Named, serialize_i8(i8) -> Named, serialize_i16(i16) -> Named,
        serialize_i32(i32) -> Named, serialize_i64(i64) -> Named, serialize_u8(u8) -> Named,
        serialize_u16(u16) -> Named, serialize_u32(u32) -> Named, serialize_u64(u64) -> Named,
        serialize_f32(f32) -> Named, serialize_f64(f64) -> Named, serialize_char(char) -> Named,
        serialize_str(&str) -> Named, serialize_bytes(&[u8]) -> Named, serialize_none() -> Named,
        serialize_unit() -> Named, serialize_unit_struct(&'static str) -> Named,
        serialize_unit_variant(&'static str, u32, &'static str) -> Named,
        serialize_seq(Option<usize>) -> No<Named>, serialize_tuple(usize) -> No<Named>,
        serialize_tuple_struct(&'static str, usize) -> No<Named>,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No<Named>,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No<Named>,
    }
}

impl SerializeStruct for Fields {
    type Ok = Named;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        self.fields.push((name.to_owned(), value.serialize(One)?));
        Ok(())
    }

    fn end(self) -> Result<Named, Problem> {
        Ok(self.fields)
    }
}

impl SerializeMap for Fields {
    type Ok = Named;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        match key.serialize(One)? {
            Value::Str(key) => self.key = Some(key),
            _ => return Err(Problem::custom("a feature's name is text")),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let key = self.key.take().unwrap_or_default();
        self.fields.push((key, value.serialize(One)?));
        Ok(())
    }

    fn end(self) -> Result<Named, Problem> {
        Ok(self.fields)
    }
}

/// One value.
struct One;

/// Numbers of a vector.
struct Floats(Vec<f32>);

impl Serializer for One {
    type Ok = Value;
    type Error = Problem;
    type SerializeSeq = Floats;
    type SerializeTuple = Floats;
    type SerializeTupleStruct = No<Value>;
    type SerializeTupleVariant = No<Value>;
    type SerializeMap = No<Value>;
    type SerializeStruct = No<Value>;
    type SerializeStructVariant = No<Value>;

    take! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_f32(f32), serialize_f64(f64),
        serialize_str(&str),
    }

    fn serialize_u64(self, value: u64) -> Result<Value, Problem> {
        i64::try_from(value).map(Value::Int).map_err(Problem::custom)
    }

    fn serialize_char(self, value: char) -> Result<Value, Problem> {
        Ok(Value::Str(value.into()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Problem> {
        Ok(value.to_vec().into())
    }

    fn serialize_none(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, Problem> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, Problem> {
        Err(Problem::custom("a value is a number, text, bytes or a sequence of floats"))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Floats, Problem> {
        Ok(Floats(Vec::with_capacity(length.unwrap_or(0).min(65_536))))
    }

    fn serialize_tuple(self, length: usize) -> Result<Floats, Problem> {
        self.serialize_seq(Some(length))
    }

    refuse! { "a value is a number, text, bytes or a sequence of floats":
        serialize_unit_struct(&'static str) -> Value,
        serialize_tuple_struct(&'static str, usize) -> No<Value>,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No<Value>,
        serialize_map(Option<usize>) -> No<Value>,
        serialize_struct(&'static str, usize) -> No<Value>,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No<Value>,
    }
}

impl SerializeSeq for Floats {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        match value.serialize(One)?.of_type(crate::DataType::F32) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the value was brought to the type"
            )]
            Ok(Value::Float(value)) => self.0.push(value as f32),
            _ => return Err(Problem::custom("a sequence holds floats")),
        }
        Ok(())
    }

    fn end(self) -> Result<Value, Problem> {
        Ok(Value::Vector(self.0))
    }
}

impl ser::SerializeTuple for Floats {
    type Ok = Value;
    type Error = Problem;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Value, Problem> {
        SerializeSeq::end(self)
    }
}
