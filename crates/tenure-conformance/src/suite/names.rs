//! 5–8, 16: names are exact, apart from each other, and listed.

use std::collections::BTreeSet;

use tenure_core::error::ErrorKind;
use tenure_core::identity::{NAME_BYTES_MAX, Name, Namespace};
use tenure_core::store::{Acquired, Prefix, Query, Snapshot};

use crate::harness::Harness;
use crate::player::{Player, name};
use crate::suite::basics::is_held_as;

/// How many pages a listing takes at most before it counts as endless.
const PAGES_MAX: usize = 10_000;

/// All pages of a listing, each within its limit.
#[track_caller]
pub(crate) fn listed(player: &Player<'_>, query: &Query) -> Vec<Snapshot> {
    let mut snapshots = Vec::new();
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let page = player
            .run(player.store.list(query, after.as_ref()))
            .unwrap_or_else(|error| panic!("{query:?} after {after:?}: {error:?}"));
        assert!(page.snapshots.len() <= query.limit, "a page beyond its limit");
        snapshots.extend(page.snapshots);
        assert!(page.next.is_none() || page.next > after, "the listing goes round in circles");
        after = page.next;
        if after.is_none() {
            return snapshots;
        }
    }
    panic!("a listing of more than {PAGES_MAX} pages");
}

fn names_of(snapshots: &[Snapshot]) -> Vec<String> {
    snapshots.iter().map(|snapshot| snapshot.record.name.to_string()).collect()
}

/// 5: what happens to one name changes nothing about another.
pub fn names_are_independent(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut first = a.acquire(&name("first"));
    let second = b.acquire(&name("second"));
    b.release(&second);
    is_held_as(&b.is_refused(&first.name), &first);
    a.keeps(&mut first);
    b.acquire(&second.name);
}

/// 6: `Job` isn't `job`.
pub fn names_case_sensitive(harness: &dyn Harness) {
    let (a, b) = Player::two(harness);
    let mut upper = a.acquire(&name("Job"));
    let mut lower = b.acquire(&name("job"));
    a.keeps(&mut upper);
    b.keeps(&mut lower);
    is_held_as(&a.sees(&lower.name), &lower);
    is_held_as(&a.sees(&upper.name), &upper);
}

/// 7: a name comes back as it was, or is refused with a typed error; two names never meet.
pub fn names_unicode_slashes_spaces_longest(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let mut texts: Vec<String> = [
        "caf\u{e9}",
        "cafe\u{301}",
        "CAF\u{c9}",
        "\u{fb01}",
        "fi",
        "\u{130}",
        "\u{131}",
        "i",
        "I",
        "\u{df}",
        "ss",
        "a/b",
        "a//b",
        "/a/b",
        "a/b/",
        "a%2Fb",
        "a%2fb",
        "a\\b",
        "a\\\\b",
        ".",
        "..",
        "./a",
        "../a",
        "a ",
        "a",
        " a",
        "a\u{a0}",
        "a  b",
        "a b",
        "a+b",
        "a%20b",
        "a*",
        "a?",
        "a_",
        "a%",
        "a:b",
        "a;b",
        "a'b",
        "a\"b",
        "a`b",
        "a{b}",
        "a[b]",
        "a$b",
        "a&b",
        "a#b",
        "a@b",
        "a.b",
        "a,b",
        "a=b",
        "a|b",
        "a<b>",
        "a~b",
        "a^b",
        "-a",
        "--",
        "\u{1f600}",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "\u{202e}abc",
        "\u{5d0}\u{5d1}",
        "\u{feff}a",
        "nul",
        "CON",
        "null",
        "undefined",
        "0",
        "00",
        "1e3",
        "true",
        "\u{10ffff}",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(NAME_BYTES_MAX));
    texts.push(format!("{}y", "x".repeat(NAME_BYTES_MAX - 1)));
    texts.push("x".repeat(NAME_BYTES_MAX - 1));
    texts.push("\u{e9}".repeat(NAME_BYTES_MAX / 2));
    let mut held = Vec::new();
    for text in &texts {
        let (claim, sent) = (a.claim(&name(text)), harness.now());
        match a.ask(&claim) {
            Acquired::Granted(grant) => held.push(a.held(&claim, grant, sent)),
            Acquired::Failed(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{text:?}: {error:?}");
            }
            other => panic!("{text:?} met another name: {other:?}"),
        }
    }
    assert!(held.len() > texts.len() / 2, "hardly any name is allowed here");
    for held in &mut held {
        a.keeps(held);
        is_held_as(&a.sees(&held.name), held);
    }
    let wanted: BTreeSet<String> = held.iter().map(|held| held.name.to_string()).collect();
    let listed = names_of(&listed(&a, &Query::new(Prefix::all())));
    assert!(listed.is_sorted(), "not in byte order: {listed:?}");
    assert_eq!(BTreeSet::from_iter(listed), wanted);
}

/// 8: namespace `a` with name `bc` isn't namespace `ab` with name `c`.
pub fn prefix_isolation(harness: &dyn Harness) {
    let space = |text: &str| Namespace::new(text).expect("it is a namespace");
    let place = |text: &str| Player::on(harness, "p", harness.open(&space(text)));
    for (one, of_one, other, of_other) in [
        ("a", "bc", "ab", "c"),
        ("a/b", "c", "a", "b/c"),
        ("a:b", "c", "a", "b:c"),
        ("x", "c", "X", "c"),
    ] {
        let (first, second) = (place(one), place(other));
        let mut held = first.acquire(&name(of_one));
        let other_held = second.acquire(&name(of_other));
        second.release(&other_held);
        first.keeps(&mut held);
        let seen = names_of(&listed(&second, &Query::new(Prefix::all())));
        let foreign = of_one != of_other && seen.contains(&of_one.to_owned());
        assert!(!foreign, "namespace `{other}` lists what `{one}` holds");
        if of_one != of_other {
            assert!(second.read(&held.name).is_none(), "`{other}` reads what `{one}` holds");
        }
    }
}

/// 16: 2500 names under a prefix are listed page by page: each once, in order, none beside it.
pub fn list_pages_2500_by_prefix(harness: &dyn Harness) {
    let a = Player::new(harness, "a");
    let thrift = harness.thrift();
    let count = (2500 / thrift).max(100);
    let under: Vec<Name> = (0..count).map(|n| name(&format!("page/{n:04}"))).collect();
    let beside = ["page", "page.", "page0", "pagf/0001", "Page/0001", "p"].map(name);
    let claims: Vec<_> = under.iter().chain(&beside).map(|name| a.claim(name)).collect();
    for batch in claims.chunks(a.store.profile().batch_max.min(500)) {
        let answers = a.run(a.store.acquire(batch)).expect("a batch of claims");
        assert_eq!(answers.len(), batch.len());
        assert!(answers.iter().all(|answer| matches!(answer, Acquired::Granted(_))));
    }
    let wanted: Vec<String> = under.iter().map(Name::to_string).collect();
    let query = Query::new(Prefix::new("page/"));
    for limit in [Query::LIMIT_MAX, 999, 77].map(|limit| limit.div_ceil(thrift)) {
        let seen = names_of(&listed(&a, &query.clone().with_limit(limit)));
        assert!(seen == wanted, "pages of {limit}: {} of {} names", seen.len(), wanted.len());
    }
    // A page may start after any name, whether or not it is there or under the prefix.
    let middle = count / 2;
    let there = format!("page/{middle:04}");
    let beyond = format!("{there}x");
    for (after, first) in
        [(there.as_str(), middle + 1), (beyond.as_str(), middle + 1), ("a", 0), ("page/", 0)]
    {
        let one = query.clone().with_limit(1);
        let page = a.run(a.store.list(&one, Some(&name(after)))).expect("a page");
        assert_eq!(names_of(&page.snapshots), wanted[first..=first], "after {after:?}");
    }
    let end = a.run(a.store.list(&query, Some(&under[count - 1]))).expect("a page");
    assert!(end.snapshots.is_empty() && end.next.is_none(), "there is nothing after the last");
    let all = listed(&a, &Query::new(Prefix::all()));
    assert_eq!(all.len(), under.len() + beside.len(), "names of tenure's own are not listed");
}
