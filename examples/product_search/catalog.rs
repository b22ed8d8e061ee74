//! A made-up shop: every product is put together from the lists below, the same in every run.

/// What the shop sells: a name, its category, how it is described, and the middle of its price in dollars.
const ITEMS: &[(&str, &str, &str, u32)] = &[
    ("running shoe", "shoes", "a light shoe with a cushioned sole for road runs", 95),
    ("trail running shoe", "shoes", "a grippy shoe for muddy paths and rocks", 120),
    ("hiking boot", "shoes", "a sturdy boot with ankle support for long mountain walks", 160),
    ("leather sandal", "shoes", "an open summer sandal with a soft footbed", 60),
    ("office shoe", "shoes", "an elegant lace-up shoe for suits and meetings", 130),
    ("slipper", "shoes", "a warm shoe for cold floors at home", 35),
    ("rain jacket", "clothing", "a waterproof jacket with a hood that packs small", 110),
    ("down jacket", "clothing", "an insulated winter jacket for freezing days", 220),
    ("wool sweater", "clothing", "a knitted pullover that keeps warm without weight", 85),
    ("linen shirt", "clothing", "an airy shirt for hot afternoons", 55),
    ("evening dress", "clothing", "a long dress for weddings and the opera", 180),
    ("yoga leggings", "clothing", "stretching trousers for the gym and yoga", 50),
    ("backpack", "bags", "a pack with padded straps for school and day trips", 75),
    ("suitcase", "bags", "a hard case on four wheels for flights", 140),
    ("laptop sleeve", "bags", "a padded sleeve that protects a computer from scratches", 30),
    (
        "wireless headphones",
        "electronics",
        "over-ear headphones that silence the noise of trains",
        190,
    ),
    ("desk lamp", "home", "a dimmable lamp for reading and work at night", 45),
    ("espresso machine", "kitchen", "a machine that brews strong coffee under pressure", 320),
    ("frying pan", "kitchen", "a heavy pan for steaks, eggs and pancakes", 55),
    ("water bottle", "outdoor", "an insulated bottle that keeps drinks cold all day", 25),
    ("two-person tent", "outdoor", "a quick tent for two campers and their luggage", 210),
    ("sleeping bag", "outdoor", "a bag for nights outside down to freezing", 130),
    ("garden hose", "garden", "a long hose that does not kink", 40),
    ("office chair", "home", "a chair that supports the back through long days", 240),
];

pub(crate) const COLORS: &[&str] =
    &["red", "blue", "green", "black", "white", "yellow", "brown", "grey", "pink", "orange"];

const BRANDS: &[&str] = &[
    "Alderly",
    "Borrowdene",
    "Cask & Tern",
    "Dunmore Lane",
    "Ember Row",
    "Fennick",
    "Greywether",
    "Halloway",
    "Inlet North",
    "Juniper Yard",
];

/// A product of the shop.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
pub(crate) struct Product {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) category: String,
    pub(crate) color: String,
    pub(crate) price: f64,
}

impl Product {
    /// What the sentence model reads.
    pub(crate) fn text(&self) -> String {
        format!("{}: {}", self.title, self.description)
    }
}

/// Every item in every color of every brand.
pub(crate) fn all() -> Vec<Product> {
    let mut products = Vec::with_capacity(ITEMS.len() * COLORS.len() * BRANDS.len());
    for (item, (name, category, description, price)) in ITEMS.iter().enumerate() {
        for (shade, color) in COLORS.iter().enumerate() {
            for (maker, brand) in BRANDS.iter().enumerate() {
                // From 0.6 to 1.4 times the middle of the price, scattered by a product of primes.
                let scatter = u32::try_from((item * 7919 + shade * 104_729 + maker * 1299) % 81)
                    .unwrap_or(40);
                let cents = price * (60 + scatter);
                products.push(Product {
                    title: format!("{brand} {color} {name}"),
                    description: format!("{description}, in {color}"),
                    category: (*category).to_owned(),
                    color: (*color).to_owned(),
                    price: f64::from(cents) / 100.0,
                });
            }
        }
    }
    products
}

/// The words by which a question names a category.
pub(crate) const CATEGORIES: &[(&str, &[&str])] = &[
    (
        "shoes",
        &["shoe", "shoes", "boot", "boots", "sandal", "sandals", "slipper", "slippers", "footwear"],
    ),
    (
        "clothing",
        &["clothes", "clothing", "jacket", "jackets", "sweater", "shirt", "dress", "leggings"],
    ),
    ("bags", &["bag", "bags", "backpack", "suitcase", "luggage"]),
    ("kitchen", &["kitchen", "pan", "espresso"]),
    ("outdoor", &["camping", "tent", "outdoor"]),
];
