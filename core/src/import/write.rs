//! Pieces of a scenario's text.

use std::collections::BTreeMap;

/// Longest line of a list.
const WIDTH: usize = 110;

/// A text in quotes, as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A number so that reading it gives the very same one, short where that is possible.
pub(super) fn number(value: f64) -> String {
    let plain = value.to_string();
    if plain.len() > 24 { format!("{value:e}") } else { plain }
}

/// `key = [items]`, on one line where it fits, else wrapped.
pub(super) fn list(key: &str, items: &[String]) -> String {
    let flat = format!("{key} = [{}]\n", items.join(", "));
    if flat.chars().count() <= WIDTH {
        return flat;
    }
    let mut text = format!("{key} = [\n");
    let mut line = String::from("   ");
    for item in items {
        if line.len() > 3 && line.chars().count() + item.chars().count() + 2 > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(item);
        line.push(',');
    }
    text.push_str(&line);
    text.push_str("\n]\n");
    text
}

/// `key = [names]`.
pub(super) fn names<'a>(key: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    list(key, &names.into_iter().map(quoted).collect::<Vec<_>>())
}

/// Places with a link from each of the first to each other of the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// Positions of the places where links begin.
    pub from: Vec<usize>,
    /// Positions of the places where they end; a place that is in both lists has no link to itself.
    pub to: Vec<usize>,
}

/// The given pairs of different places, each once, as few blocks: places that reach the same others go together.
pub(super) fn blocks(pairs: &[(usize, usize)]) -> Vec<Block> {
    let mut reached: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &(from, to) in pairs {
        reached.entry(from).or_default().push(to);
    }
    reached.values_mut().for_each(|to| to.sort_unstable());
    // Places that reach one another have the same list once each counts itself.
    let mut closed: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for (&from, to) in &reached {
        let mut with = to.clone();
        with.insert(with.partition_point(|&other| other < from), from);
        closed.entry(with).or_default().push(from);
    }
    let mut open: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    let mut blocks = Vec::new();
    for (with, from) in closed {
        if from.len() > 1 {
            blocks.push(Block { from, to: with });
        } else {
            let to = reached.get(&from[0]).cloned().unwrap_or_default();
            open.entry(to).or_default().extend(from);
        }
    }
    blocks.extend(open.into_iter().map(|(to, from)| Block { from, to }));
    blocks.sort_by(|a, b| a.from.cmp(&b.from));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn blocks_are_exactly_the_pairs_they_were_made_of() {
        // Every set of pairs of four places, by enumeration.
        let all: Vec<(usize, usize)> =
            (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
        for set in 0_u32..1 << all.len() {
            let pairs: Vec<_> = all.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, &p)| p).collect();
            let mut again = Vec::new();
            for block in blocks(&pairs) {
                let from = block.from.iter();
                again.extend(from.flat_map(|&a| block.to.iter().filter(move |&&b| b != a).map(move |&b| (a, b))));
            }
            assert_eq!(again.len(), pairs.len());
            assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), pairs.into_iter().collect());
        }
    }

    #[test]
    fn a_full_mesh_is_one_block() {
        let pairs: Vec<_> = (0..9).flat_map(|a| (0..9).map(move |b| (a, b))).filter(|(a, b)| a != b).collect();
        assert_eq!(blocks(&pairs).len(), 1);
    }

    #[test]
    fn a_number_is_read_back_exactly() {
        for value in [0.1, 23833.86986632437, 1e300, 5e-324, 61035.15625, 1.0 / 3.0, 5e8] {
            assert_eq!(number(value).parse::<f64>().map(f64::to_bits), Ok(value.to_bits()));
        }
    }

    #[test]
    fn quotes_and_controls_in_a_text_are_read_back() {
        let text = "a \"b\" \\ c\nd";
        let table: toml::Table = toml::from_str(&format!("x = {}", quoted(text))).expect("TOML");
        assert_eq!(table["x"].as_str(), Some(text));
    }
}
