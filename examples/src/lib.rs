//! Runnable programs; see the `[[example]]` entries of this package.
