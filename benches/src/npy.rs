use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use half::f16;

use crate::Result;

/// Rows of 16-bit floats, read from a file as NumPy writes it: an `.npz` with one array of two dimensions.
#[derive(Debug)]
pub struct Matrix {
    values: Vec<f32>,
    columns: usize,
}

impl Matrix {
    /// Reads the first array of an `.npz` file.
    ///
    /// # Errors
    ///
    /// If it is none, or not one of little-endian 16-bit floats in rows.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut archive = zip::ZipArchive::new(file)?;
        let mut bytes = Vec::new();
        archive.by_index(0)?.read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// Reads the `.npy` format, version 1 (NumPy Enhancement Proposal 1).
    fn parse(bytes: &[u8]) -> Result<Self> {
        let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00").ok_or("no .npy file of version 1")?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or("the header is cut off")?;
        let length = usize::from(u16::from_le_bytes(*length));
        let (header, data) = rest.split_at_checked(length).ok_or("the header is cut off")?;
        let header = str::from_utf8(header)?;
        if !header.contains("'descr': '<f2'") || !header.contains("'fortran_order': False") {
            return Err("only rows of 16-bit floats are read".into());
        }
        let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')'));
        let (shape, _) = shape.ok_or("the header has no shape")?;
        let shape = shape
            .split(',')
            .map(|number| number.trim().parse())
            .collect::<std::result::Result<Vec<usize>, _>>()?;
        let &[rows, columns] = shape.as_slice() else {
            return Err("only arrays of two dimensions are read".into());
        };
        let (halves, []) = data.as_chunks::<2>() else { return Err("the data is cut off".into()) };
        if halves.len() != rows * columns || columns == 0 {
            return Err("the data does not have the shape of the header".into());
        }
        let values = halves.iter().map(|half| f16::from_le_bytes(*half).to_f32()).collect();
        let mut matrix = Self { values, columns };
        matrix.normalize();
        Ok(matrix)
    }

    /// Returns a row.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.values.chunks_exact(self.columns).nth(index)
    }

    /// Makes all rows of length 1, so that their products are cosines.
    fn normalize(&mut self) {
        for row in self.values.chunks_exact_mut(self.columns) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= norm.max(f32::MIN_POSITIVE));
        }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Tells whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the cosine of the angle between two rows; 0 for rows that are not there.
    #[must_use]
    pub fn similarity(&self, a: usize, b: usize) -> f32 {
        let row = |row: usize| self.values.chunks_exact(self.columns).nth(row).unwrap_or_default();
        let (a, b) = (row(a).as_chunks::<8>().0, row(b).as_chunks::<8>().0);
        // Eight sums side by side, which the compiler makes vector instructions of.
        let mut sums = [0.0_f32; 8];
        for (a, b) in a.iter().zip(b) {
            for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                *sum += a * b;
            }
        }
        sums.iter().sum()
    }
}
