//! The order of the rooms and of their files, and the checks of imports against it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::code::{Code, Sources};
use crate::imports::Import;

/// Rooms in their order, each with its files in their order. `table.rs` explains the names.
pub(crate) struct Order(pub(crate) &'static [(&'static str, &'static [&'static str])]);

/// The place of a file: the index of its room, and the index of the file in the room. A test file has no
/// index in its room.
type Place = (usize, Option<usize>);

impl Order {
    /// Returns the place of `file`, such as `src/hub/mod.rs`; `None` if the file is in no room.
    fn place(&self, file: &str) -> Option<Place> {
        let path = file.strip_prefix("src/")?.strip_suffix(".rs")?;
        let is_inside = |room: &str| {
            path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let rooms = self.0.iter().enumerate().filter(|(_, (room, _))| is_inside(room));
        let (index, (room, files)) = rooms.max_by_key(|(_, (room, _))| room.len())?;

        let name = path[room.len()..].trim_start_matches('/');
        let name = name.strip_suffix("/mod").unwrap_or(name);
        let name = if name.is_empty() { "mod" } else { name };
        let place = match files.is_empty() {
            true => (name == "mod").then_some(0),
            false => files.iter().position(|file| *file == name),
        };
        Some((index, place))
    }

    /// Returns an error for each file that is missing from the table, or that no crate contains.
    pub(crate) fn unlisted(&self, code: &Code, sources: &Sources) -> Vec<String> {
        let mut errors = Vec::new();
        for file in sources.keys() {
            let mut modules = code.modules.iter().filter(|module| module.file == *file);
            match modules.next() {
                None => errors.push(format!("{file} is a module of no crate")),
                Some(module) if module.test => {}
                Some(_) if matches!(self.place(file), Some((_, Some(_)))) => {}
                Some(_) => errors.push(format!("{file} is not in the table")),
            }
        }
        errors
    }

    /// Returns an error for each entry of the table that is listed twice or for which there is no file.
    pub(crate) fn absent(&self, sources: &Sources) -> Vec<String> {
        let places: Vec<Place> = sources.keys().filter_map(|file| self.place(file)).collect();
        let mut errors = Vec::new();
        for (index, (room, files)) in self.0.iter().enumerate() {
            for place in 0..files.len().max(1) {
                if !places.contains(&(index, Some(place))) {
                    let file = files.get(place).unwrap_or(&"mod");
                    errors
                        .push(format!("{room}: there is no file `{file}`, or it is listed twice"));
                }
            }
        }
        errors
    }

    /// Returns the imports of a room that is later in the order, one for each file and room. Such imports are
    /// errors in tests, too; one in a test is returned only if the file has no other.
    pub(crate) fn imports_of_later_rooms(&self, imports: &[Import]) -> Vec<String> {
        let mut errors = BTreeMap::new();
        let (tests, others): (Vec<&Import>, Vec<_>) = imports.iter().partition(|one| one.test);
        for import in others.into_iter().chain(tests) {
            let Some((importer, _)) = self.place(&import.file) else { continue };
            for file in import.defined_in.union(&import.through) {
                let Some((room, _)) = self.place(file).filter(|(room, _)| *room > importer) else {
                    continue;
                };
                let error = format!("{import} ({file}): `{}` is a later room", self.0[room].0);
                errors.entry((&import.file, room)).or_insert(error);
            }
        }
        errors.into_values().collect()
    }

    /// Returns the imports of a file that is later in the order of its room, one for each pair of files. Tests
    /// may have such imports.
    pub(crate) fn imports_of_later_files(&self, imports: &[Import]) -> Vec<String> {
        let mut errors = BTreeMap::new();
        for import in imports.iter().filter(|import| !import.test) {
            let Some((room, Some(importer))) = self.place(&import.file) else { continue };
            for file in &import.defined_in {
                match self.place(file) {
                    Some((other, Some(imported))) if other == room && imported > importer => {
                        let error = format!("{import} ({file}): a later file of its room");
                        errors.entry((&import.file, file)).or_insert(error);
                    }
                    _ => {}
                }
            }
        }
        errors.into_values().collect()
    }
}

/// Returns the circles of files that import each other, each with its imports. Imports in tests do not count.
/// Each circle begins at a file that is in none of the circles before.
pub(crate) fn circles(imports: &[Import]) -> Vec<String> {
    let mut graph: BTreeMap<&str, BTreeMap<&str, &Import>> = BTreeMap::new();
    for import in imports.iter().filter(|import| !import.test) {
        for file in &import.defined_in {
            graph.entry(&import.file).or_default().entry(file).or_insert(import);
        }
    }
    let (mut circles, mut done) = (Vec::new(), BTreeSet::new());
    for file in graph.keys() {
        let Some(circle) = shortest_circle(&graph, file).filter(|_| !done.contains(file)) else {
            continue;
        };
        let edges = circle.windows(2).map(|pair| format!("\n    {}", graph[pair[0]][pair[1]]));
        circles.push(circle.join(" -> ") + &edges.collect::<String>());
        done.extend(circle);
    }
    circles
}

/// Returns the shortest circle from `start` back to `start`, both included.
fn shortest_circle<'a>(
    graph: &BTreeMap<&'a str, BTreeMap<&'a str, &Import>>,
    start: &'a str,
) -> Option<Vec<&'a str>> {
    let mut reached = BTreeSet::new();
    let mut paths = VecDeque::from([vec![start]]);
    while let Some(path) = paths.pop_front() {
        let last = path.last().expect("a path has a start");
        for next in graph.get(last).into_iter().flat_map(BTreeMap::keys) {
            let longer = [&path[..], &[*next]].concat();
            if *next == start {
                return Some(longer);
            }
            if reached.insert(*next) {
                paths.push_back(longer);
            }
        }
    }
    None
}
