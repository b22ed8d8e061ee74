/// Returns the numbers below `count` in an order that is the same in every run with this seed.
#[must_use]
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = seed;
    for last in (1..count).rev() {
        // The multiplier is Knuth's for MMIX.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).unwrap_or(0) % (last + 1);
        order.swap(last, other);
    }
    order
}

/// Returns the rows of a CSV file (RFC 4180).
pub fn csv_rows(file: &str) -> impl Iterator<Item = Vec<String>> {
    let mut characters = file.chars().peekable();
    std::iter::from_fn(move || {
        characters.peek()?;
        let (mut row, mut field, mut quoted) = (Vec::new(), String::new(), false);
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    field.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut field)),
                '\n' if !quoted => break,
                '\r' if !quoted => {}
                other => field.push(other),
            }
        }
        row.push(field);
        Some(row)
    })
}
