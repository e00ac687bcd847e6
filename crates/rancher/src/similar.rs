//! Names that a user may have meant.

/// How many are worth showing.
const SHOWN: usize = 3;

/// The names that differ from what was typed by no more than a third of its letters, or contain it; best first.
pub(crate) fn similar<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let typed = typed.to_lowercase();
    let letters = typed.chars().count();
    let mut similar: Vec<(usize, &str)> = names
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = strsim::levenshtein(&typed, &lower);
            let contained = letters >= 3 && lower.contains(&typed);
            (distance <= (letters / 3).max(1) || contained).then_some((distance, name))
        })
        .collect();
    similar.sort_unstable();
    similar.dedup();
    similar
        .into_iter()
        .take(SHOWN)
        .map(|(_, name)| name.to_owned())
        .collect()
}
