//! A disk that may lose what was not synced: it follows a recording and can be rebuilt at any
//! operation as a power cut could leave it.
//!
//! What a sync that worked has covered survives. Of later writes, cut into pieces that lie in one
//! page, any page keeps as many of its pieces as it likes, oldest first. After a sync that failed
//! the writes before it may stay lost although a later sync works, unless their page is written
//! again: that is what Linux does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;
use weir::os::random::repeatable;

use super::recording::{Act, Op, Recording};

const PAGE: u64 = 4096;

/// How names (created, renamed, removed) are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// As a journal does: in order, and every sync of anything saves all of them (ext4).
    Ordered,
    /// Each on its own; only a sync of every directory it touches saves it.
    Loose,
}

/// The content of a disk: directories are `None`.
pub(crate) type Image = BTreeMap<String, Option<Vec<u8>>>;

type Key = (usize, String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Waiting,
    /// A sync of it failed.
    Doubtful,
    Sure,
}

#[derive(Debug, Clone)]
enum What {
    /// Bytes within one page.
    Piece(u64, Vec<u8>),
    Truncate(u64),
}

impl What {
    fn page(&self) -> Option<u64> {
        match self {
            Self::Piece(offset, _) => Some(offset / PAGE),
            Self::Truncate(_) => None,
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Piece(offset, bytes) => {
                let (from, to) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(bytes);
            }
            Self::Truncate(length) => content.resize(*length as usize, 0),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Content {
    base: Vec<u8>,
    changes: Vec<(What, Fate)>,
    /// The size a reader sees now.
    size: u64,
}

impl Content {
    fn write(&mut self, mut offset: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min((PAGE - offset % PAGE) as usize));
            self.changes.push((What::Piece(offset, piece.to_vec()), Fate::Waiting));
            offset += piece.len() as u64;
            data = rest;
        }
        self.size = self.size.max(offset);
    }

    fn truncate(&mut self, length: u64) {
        self.changes.push((What::Truncate(length), Fate::Waiting));
        self.size = length;
    }

    fn sync(&mut self, worked: bool) {
        let fate = if worked { Fate::Sure } else { Fate::Doubtful };
        self.changes.iter_mut().filter(|c| c.1 == Fate::Waiting).for_each(|c| c.1 = fate);
        if !worked {
            return;
        }
        let mut again = BTreeSet::new();
        for (what, fate) in self.changes.iter_mut().rev() {
            match what.page() {
                Some(page) if *fate == Fate::Sure => drop(again.insert(page)),
                Some(page) if again.contains(&page) => *fate = Fate::Sure,
                // The size goes with any later sync.
                None => *fate = Fate::Sure,
                Some(_) => {}
            }
        }
        if self.changes.iter().all(|c| c.1 == Fate::Sure) {
            for (what, _) in self.changes.drain(..) {
                what.apply(&mut self.base);
            }
        }
    }

    /// The page cache is gone: what a failed sync left in doubt has reached the disk or has not.
    fn forget(&mut self, random: &mut StdRng) {
        let mut again = BTreeSet::new();
        let mut kept: Vec<_> = std::mem::take(&mut self.changes);
        kept.reverse();
        kept.retain_mut(|(what, fate)| {
            let page = what.page();
            let rewritten = page.is_some_and(|page| !again.insert(page)) && *fate == Fate::Doubtful;
            let survives = *fate != Fate::Doubtful || rewritten || page.is_none() || random.random_bool(0.5);
            if *fate == Fate::Doubtful {
                *fate = Fate::Sure;
            }
            survives
        });
        kept.reverse();
        self.changes = kept;
        self.size = self.now().len() as u64;
    }

    fn now(&self) -> Vec<u8> {
        let mut bytes = self.base.clone();
        self.changes.iter().for_each(|(what, _)| what.apply(&mut bytes));
        bytes
    }

    fn survivor(&self, style: Style, random: &mut StdRng) -> Vec<u8> {
        let mut content = self.base.clone();
        let open = self.changes.iter().filter(|c| c.1 != Fate::Sure).count();
        let style = if style == Style::Mixed {
            [Style::All, Style::Nothing, Style::Prefix, Style::Pages, Style::Pages][random.random_range(0..5)]
        } else {
            style
        };
        let first = match style {
            Style::Prefix => random.random_range(0..=open),
            _ => open,
        };
        let mut pages: BTreeMap<u64, usize> = BTreeMap::new();
        if style == Style::Pages {
            for page in self.changes.iter().filter(|c| c.1 != Fate::Sure).filter_map(|c| c.0.page()) {
                *pages.entry(page).or_default() += 1;
            }
            for left in pages.values_mut() {
                *left = match random.random_range(0..5) {
                    0 | 1 => 0,
                    2 | 3 => *left,
                    _ => random.random_range(0..=*left),
                };
            }
        }
        let mut seen = 0;
        for (what, fate) in &self.changes {
            let survives = *fate == Fate::Sure || {
                seen += 1;
                match (style, what.page()) {
                    (Style::All, _) => true,
                    (Style::Nothing, _) => false,
                    (Style::Pages, None) => random.random_bool(0.5),
                    (Style::Pages, Some(page)) => {
                        let left = pages.entry(page).or_default();
                        let kept = *left > 0;
                        *left = left.saturating_sub(1);
                        kept
                    }
                    _ => seen <= first,
                }
            };
            if survives {
                what.apply(&mut content);
            }
        }
        // The size may be there before the bytes are.
        if style != Style::All && (content.len() as u64) < self.size && random.random_bool(0.3) {
            content.resize(random.random_range(content.len() as u64..=self.size) as usize, 0);
        }
        content
    }
}

/// How much of what was not synced a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    All,
    Nothing,
    /// The first so many pieces.
    Prefix,
    /// Of each page as many pieces as it likes.
    Pages,
    /// Each file as it likes.
    Mixed,
}

#[derive(Debug, Clone)]
enum Object {
    Directory,
    File(Content),
}

/// A change of names; all of it survives or nothing.
#[derive(Debug, Clone)]
struct Renaming {
    sets: Vec<(Key, Option<usize>)>,
    /// Directories whose sync it still needs.
    waits: BTreeSet<usize>,
    /// The directory it removes, which must be empty then.
    empties: Option<usize>,
}

/// The disk while a recording is followed.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    names: Names,
    objects: Vec<Object>,
    live: BTreeMap<Key, usize>,
    durable: BTreeMap<Key, usize>,
    waiting: Vec<Renaming>,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Disk {
    /// A disk that durably holds `image`.
    pub(crate) fn new(image: &Image, names: Names) -> Self {
        let mut disk = Self {
            names,
            objects: vec![Object::Directory],
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            waiting: Vec::new(),
        };
        for (path, content) in image {
            let object = match content {
                None => Object::Directory,
                Some(bytes) => {
                    Object::File(Content { base: bytes.clone(), changes: Vec::new(), size: bytes.len() as u64 })
                }
            };
            let key = disk.key(path);
            disk.objects.push(object);
            disk.live.insert(key, disk.objects.len() - 1);
        }
        disk.durable = disk.live.clone();
        disk
    }

    fn find(&self, path: &str) -> Option<usize> {
        let mut at = 0;
        for part in path.split('/').filter(|p| !p.is_empty()) {
            at = *self.live.get(&(at, part.to_owned()))?;
        }
        Some(at)
    }

    fn key(&self, path: &str) -> Key {
        let (parent, name) = split(path);
        (self.find(parent).unwrap_or_else(|| panic!("{parent} is not on the disk")), name.to_owned())
    }

    fn file(&mut self, path: &str) -> &mut Content {
        let at = self.find(path).unwrap_or_else(|| panic!("{path} is not on the disk"));
        match &mut self.objects[at] {
            Object::File(content) => content,
            Object::Directory => panic!("{path} is a directory"),
        }
    }

    fn rename(&mut self, sets: Vec<(Key, Option<usize>)>, empties: Option<usize>) {
        for (key, object) in &sets {
            match object {
                Some(object) => drop(self.live.insert(key.clone(), *object)),
                None => drop(self.live.remove(key)),
            }
        }
        let waits = sets.iter().map(|(key, _)| key.0).collect();
        self.waiting.push(Renaming { sets, waits, empties });
    }

    /// Does what the process did.
    pub(crate) fn follow(&mut self, op: &Op, recording: &Recording) {
        let path = op.path.as_str();
        match &op.act {
            Act::Start => self.begin(),
            Act::Mark { .. } => {}
            Act::Create | Act::Mkdir => {
                let file = op.act == Act::Create;
                self.objects.push(if file { Object::File(Content::default()) } else { Object::Directory });
                self.rename(vec![(self.key(path), Some(self.objects.len() - 1))], None);
            }
            Act::Truncate { length } => self.file(path).truncate(*length),
            Act::Allocate { end } => {
                let file = self.file(path);
                if file.size < *end {
                    file.truncate(*end);
                }
            }
            Act::Write { offset, data } => self.file(path).write(*offset, &recording.bytes[data.clone()]),
            Act::Rename { to } => {
                let object = self.find(path);
                self.rename(vec![(self.key(path), None), (self.key(to), object)], None);
            }
            Act::Unlink => self.rename(vec![(self.key(path), None)], None),
            Act::Rmdir => self.rename(vec![(self.key(path), None)], self.find(path)),
            Act::Sync { worked } => self.sync(path, *worked),
            Act::Unknown => panic!("the recorder saw something on {path} that this disk does not know"),
        }
    }

    /// A process begins. The store drops the cached pages of a `db` before it searches it (its
    /// unit test sees to that), so it meets what the disk has got. Of other files the cache may
    /// still hold what the disk never gets.
    pub(crate) fn begin(&mut self) {
        let mut random = repeatable(self.objects.len() as u64);
        let files = self.live.iter().filter(|((_, name), _)| name == "db").map(|(_, object)| *object);
        for object in files.collect::<Vec<_>>() {
            if let Object::File(content) = &mut self.objects[object]
                && content.changes.iter().any(|c| c.1 == Fate::Doubtful)
            {
                content.forget(&mut random);
            }
        }
    }

    fn sync(&mut self, path: &str, worked: bool) {
        let at = self.find(path).unwrap_or_else(|| panic!("{path} is not on the disk"));
        if let Object::File(content) = &mut self.objects[at] {
            content.sync(worked);
        }
        if !worked {
            return;
        }
        if self.names == Names::Ordered {
            self.waiting.iter_mut().for_each(|w| w.waits.clear());
        } else if matches!(self.objects[at], Object::Directory) {
            self.waiting.iter_mut().for_each(|w| w.waits.retain(|dir| *dir != at));
        }
        // What a saved change stands on is saved with it.
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        for renaming in self.waiting.iter_mut().rev() {
            if renaming.sets.iter().any(|(key, _)| keys.contains(key)) {
                renaming.waits.clear();
            }
            if renaming.waits.is_empty() {
                keys.extend(renaming.sets.iter().map(|(key, _)| key.clone()));
            }
        }
        let (saved, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|w| w.waits.is_empty());
        self.waiting = waiting;
        let saved: Vec<Renaming> = saved;
        for renaming in &saved {
            apply(renaming, &mut self.durable);
        }
    }

    /// What a reader sees now.
    pub(crate) fn now(&self) -> Image {
        self.image(&self.live, &mut Content::now)
    }

    /// The disk as a power cut at this moment could leave it.
    pub(crate) fn cut(&self, random: &mut StdRng) -> Image {
        let style = match random.random_range(0..10) {
            0 => Style::All,
            1 | 2 => Style::Nothing,
            _ => Style::Mixed,
        };
        let mut names = self.durable.clone();
        let count = match style {
            Style::All => self.waiting.len(),
            Style::Nothing => 0,
            _ => random.random_range(0..=self.waiting.len()),
        };
        let each = [0.1, 0.5, 0.9][random.random_range(0..3)];
        let mut lost: BTreeSet<Key> = BTreeSet::new();
        for (i, renaming) in self.waiting.iter().enumerate() {
            let wanted = match (self.names, style) {
                (Names::Loose, Style::Mixed) => random.random_bool(each),
                _ => i < count,
            };
            let possible = renaming.sets.iter().all(|(key, _)| !lost.contains(key))
                && renaming.empties.is_none_or(|dir| names.keys().all(|key| key.0 != dir));
            if wanted && possible {
                apply(renaming, &mut names);
            } else {
                lost.extend(renaming.sets.iter().map(|(key, _)| key.clone()));
            }
        }
        self.image(&names, &mut |content| content.survivor(style, random))
    }

    fn image(&self, names: &BTreeMap<Key, usize>, read: &mut dyn FnMut(&Content) -> Vec<u8>) -> Image {
        let mut image = Image::new();
        let mut open = vec![(0, String::new())];
        while let Some((dir, prefix)) = open.pop() {
            for ((_, name), object) in names.range((dir, String::new())..(dir + 1, String::new())) {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
                match &self.objects[*object] {
                    Object::Directory => {
                        open.push((*object, path.clone()));
                        image.insert(path, None);
                    }
                    Object::File(content) => drop(image.insert(path, Some(read(content)))),
                }
            }
        }
        image
    }
}

fn apply(renaming: &Renaming, names: &mut BTreeMap<Key, usize>) {
    for (key, object) in &renaming.sets {
        match object {
            Some(object) => drop(names.insert(key.clone(), *object)),
            None => drop(names.remove(key)),
        }
    }
}

/// Puts `image` into the directory `root`, which is made.
pub(crate) fn put(image: &Image, root: &Path) {
    std::fs::create_dir_all(root).unwrap();
    for (path, content) in image {
        match content {
            None => std::fs::create_dir(root.join(path)).unwrap(),
            Some(bytes) => std::fs::write(root.join(path), bytes).unwrap(),
        }
    }
}

/// Reads the directory `root`.
pub(crate) fn get(root: &Path) -> Image {
    let mut image = Image::new();
    let mut open = vec![String::new()];
    while let Some(prefix) = open.pop() {
        for entry in std::fs::read_dir(root.join(&prefix)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if entry.file_type().unwrap().is_dir() {
                open.push(path.clone());
                image.insert(path, None);
            } else {
                image.insert(path, Some(std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(bytes: &[u8]) -> Recording {
        Recording { bytes: bytes.to_vec(), ops: Vec::new() }
    }

    fn op(path: &str, act: Act) -> Op {
        Op { path: path.into(), act }
    }

    fn outcomes(disk: &Disk) -> BTreeSet<Image> {
        let mut random = repeatable(1);
        (0..400).map(|_| disk.cut(&mut random)).collect()
    }

    #[test]
    fn what_was_synced_survives_every_cut_and_what_was_not_does_not_survive_some() {
        for names in [Names::Ordered, Names::Loose] {
            let log = recording(&[7; 10_000]);
            let mut disk = Disk::new(&Image::new(), names);
            disk.follow(&op("a", Act::Create), &log);
            disk.follow(&op("a", Act::Write { offset: 0, data: 0..10_000 }), &log);
            assert!(outcomes(&disk).iter().any(|i| !i.contains_key("a")));
            assert!(outcomes(&disk).iter().any(|i| i.get("a") == Some(&Some(Vec::new()))));
            disk.follow(&op("a", Act::Sync { worked: true }), &log);
            let lost = outcomes(&disk).iter().any(|i| !i.contains_key("a"));
            assert_eq!(lost, names == Names::Loose, "only the loose disk wants the directory synced");
            disk.follow(&op("", Act::Sync { worked: true }), &log);
            let kept = Image::from([("a".into(), Some(vec![7; 10_000]))]);
            assert_eq!(outcomes(&disk), BTreeSet::from([kept]));
        }
    }

    #[test]
    fn pages_survive_each_on_its_own_and_in_their_own_order() {
        let log = recording(&[[1; 8192], [2; 8192]].concat());
        let mut disk = Disk::new(&Image::from([("a".into(), Some(vec![0; 8192]))]), Names::Loose);
        disk.follow(&op("a", Act::Write { offset: 0, data: 0..8192 }), &log);
        disk.follow(&op("a", Act::Write { offset: 0, data: 8192..16_384 }), &log);
        let seen: BTreeSet<_> =
            outcomes(&disk).iter().map(|i| i["a"].clone().unwrap()).map(|c| (c[0], c[5000])).collect();
        assert_eq!(seen.len(), 9, "{seen:?}");
    }

    #[test]
    fn a_sync_that_failed_leaves_doubt_that_a_later_one_does_not_remove() {
        let log = recording(&[1; 100]);
        let mut disk = Disk::new(&Image::from([("a".into(), Some(vec![0; 8192]))]), Names::Loose);
        disk.follow(&op("a", Act::Write { offset: 0, data: 0..100 }), &log);
        disk.follow(&op("a", Act::Sync { worked: false }), &log);
        disk.follow(&op("a", Act::Sync { worked: true }), &log);
        assert!(outcomes(&disk).iter().any(|i| i["a"].as_ref().unwrap()[0] == 0));
        disk.follow(&op("a", Act::Write { offset: 200, data: 0..100 }), &log);
        disk.follow(&op("a", Act::Sync { worked: true }), &log);
        assert!(outcomes(&disk).iter().all(|i| i["a"].as_ref().unwrap()[0] == 1), "the page was written again");
    }

    #[test]
    fn names_keep_their_dependencies() {
        let log = recording(&[]);
        let base = Image::from([("d".into(), None), ("d/x".into(), Some(vec![1]))]);
        let mut disk = Disk::new(&base, Names::Loose);
        disk.follow(&op("d", Act::Rename { to: "t".into() }), &log);
        disk.follow(&op("t/x", Act::Unlink), &log);
        disk.follow(&op("t", Act::Rmdir), &log);
        let seen = outcomes(&disk);
        assert!(seen.contains(&base) && seen.contains(&Image::new()));
        assert!(seen.iter().all(|i| !i.contains_key("t") || !i.contains_key("d")));
        assert!(seen.contains(&Image::from([("d".into(), None)])), "the file is gone, the directory not renamed");
    }
}
