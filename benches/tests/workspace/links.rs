//! Every link between tracked pages leads somewhere: to a tracked file, and there to a heading.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkout::{skip_without_git, tracked, tracked_texts};
use crate::expect_none;

/// Lines of a page outside code fences, with inline code blanked, as (line number, text).
fn prose(page: &str) -> Vec<(usize, String)> {
    let mut fence: Option<&str> = None;
    let mut kept = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
        match (fence, mark) {
            (None, Some(opened)) => fence = Some(opened),
            (Some(opened), Some(closed)) if opened == closed => fence = None,
            (None, None) => {
                let outside = line.split('`').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "" });
                kept.push((index + 1, outside.collect::<Vec<_>>().join("`")));
            }
            _ => {}
        }
    }
    kept
}

/// Targets of inline links and of reference definitions, as (line number, target).
fn links(page: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(page) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            found.push((number, target.split_whitespace().next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// The anchors that headings make: lower case, spaces to hyphens, punctuation dropped, repeats numbered.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut made = BTreeSet::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if fenced || !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let kept = line[level..].trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let slug: String = kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect();
        let seen = times.entry(slug.clone()).or_insert(0);
        made.insert(if *seen == 0 { slug } else { format!("{slug}-{seen}") });
        *seen += 1;
    }
    made
}

/// Joins `target` to the folder of `from` and resolves `.` and `..`; `None` when it leaves the checkout.
fn resolve(from: &str, target: &str) -> Option<String> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Why the link is broken, or `None` when it leads somewhere. `pages` maps each tracked page to its anchors.
fn broken(
    from: &str,
    target: &str,
    files: &BTreeSet<String>,
    pages: &BTreeMap<&str, BTreeSet<String>>,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    if path.starts_with('/') {
        return Some("write it relative to the page".into());
    }
    let Some(file) = (if path.is_empty() { Some(from.to_owned()) } else { resolve(from, path) }) else {
        return Some("leaves the checkout".into());
    };
    let folder = format!("{file}/");
    if !file.is_empty() && !files.contains(&file) && !files.iter().any(|known| known.starts_with(&folder)) {
        return Some(format!("{file} is not tracked"));
    }
    let anchor = anchor?;
    let known = pages.get(file.as_str())?;
    (!known.contains(anchor)).then(|| format!("{file} has no heading that makes #{anchor}"))
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let (Some(files), Some(texts)) = (tracked(), tracked_texts()) else {
        return skip_without_git("every_link_between_pages_leads_somewhere");
    };
    let files: BTreeSet<String> = files.into_iter().collect();
    let markdown: Vec<&(String, String)> = texts.iter().filter(|(path, _)| path.ends_with(".md")).collect();
    let pages = markdown.iter().map(|(path, text)| (path.as_str(), anchors(text))).collect();
    let mut found = Vec::new();
    for (path, text) in markdown {
        for (number, target) in links(text) {
            let why = broken(path, &target, &files, &pages);
            found.extend(why.map(|why| format!("{path}:{number}: ({target}): {why}")));
        }
    }
    expect_none("Mend or remove these links:", &found);
}

#[test]
fn every_page_of_the_book_is_in_its_table_of_contents() {
    let Some(texts) = tracked_texts() else {
        return skip_without_git("every_page_of_the_book_is_in_its_table_of_contents");
    };
    let Some((_, contents)) = texts.iter().find(|(path, _)| path == "docs/SUMMARY.md") else {
        panic!("docs/SUMMARY.md, the book's table of contents, is missing");
    };
    let listed: BTreeSet<String> =
        links(contents).into_iter().filter_map(|(_, target)| resolve("docs/SUMMARY.md", &target)).collect();
    let pages = texts.iter().map(|(path, _)| path).filter(|path| path.starts_with("docs/") && path.ends_with(".md"));
    let missing: Vec<String> =
        pages.filter(|path| *path != "docs/SUMMARY.md" && !listed.contains(*path)).cloned().collect();
    expect_none("Add a line for each to docs/SUMMARY.md:", &missing);
}

#[test]
fn links_in_prose_are_found_and_links_in_code_are_not() {
    let page = "see [a](b.md#c) and `[x](y)`\n```\n[no](no.md)\n```\n[d]: e.md\n";
    assert_eq!(links(page), [(1, "b.md#c".to_owned()), (5, "e.md".to_owned())]);
}

#[test]
fn headings_make_the_anchors_a_reader_can_link_to() {
    let made = anchors("# One, two: `three`\n## Again\n## Again\n```\n# no\n```\n#hash\n");
    assert_eq!(made, BTreeSet::from(["one-two-three".to_owned(), "again".to_owned(), "again-1".to_owned()]));
}

#[test]
fn a_link_to_nowhere_is_caught() {
    let files = BTreeSet::from(["docs/a.md".to_owned(), "README.md".to_owned()]);
    let pages = BTreeMap::from([("docs/a.md", anchors("# Here")), ("README.md", anchors("# Top"))]);
    for fine in ["a.md", "#here", "../README.md#top", "../docs", "https://example.test/x"] {
        assert_eq!(broken("docs/a.md", fine, &files, &pages), None, "{fine}");
    }
    for bad in ["b.md", "#there", "../README.md#gone", "../../out.md", "/docs/a.md"] {
        assert!(broken("docs/a.md", bad, &files, &pages).is_some(), "{bad}");
    }
}
