//! Follows each path in the code to the files that define the items it names.
//!
//! Using a value without naming its type is not an import, and neither is calling a method.

use std::collections::BTreeSet;
use std::fmt;

use crate::code::{Code, Definition, Mention, Names};

/// One mention of an item that is defined in another file.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The path as it is written.
    pub(crate) path: String,
    /// The files that define the items that the path names.
    pub(crate) defined_in: BTreeSet<String>,
    /// The files of the modules that the path leads through.
    pub(crate) through: BTreeSet<String>,
    /// True for code that is compiled for tests only.
    pub(crate) test: bool,
}

impl fmt::Display for Import {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} imports {}", self.file, self.line, self.path)
    }
}

/// The files and modules that a path leads to.
#[derive(Default)]
struct Found {
    /// The files that define the items that the path names.
    files: BTreeSet<String>,
    /// The modules that the path names.
    modules: BTreeSet<usize>,
    /// The modules that the path leads through. The root of the crate does not count.
    through: BTreeSet<usize>,
    seen: Seen,
}

/// The declarations that are being followed, so that the search ends if they name each other.
#[derive(Default)]
struct Seen {
    aliases: BTreeSet<(usize, Names)>,
    globs: BTreeSet<(usize, String)>,
}

impl Code {
    /// Returns all imports between files. A re-export from a module inside the same module is not an import.
    pub(crate) fn imports(&self) -> Vec<Import> {
        self.mentions.iter().filter_map(|mention| self.import(mention)).collect()
    }

    fn import(&self, mention: &Mention) -> Option<Import> {
        let found = self.search(mention);
        let file = &self.modules[mention.module].file;
        let is_other = |other: &String| other != file && !self.is_own_re_export(mention, other);
        let through = found.through.iter().map(|module| self.modules[*module].file.clone());
        let import = Import {
            file: file.clone(),
            line: mention.line,
            path: mention.path.join("::") + if mention.glob { "::*" } else { "" },
            defined_in: found.files.into_iter().filter(is_other).collect(),
            through: through.filter(is_other).collect(),
            test: mention.test,
        };
        let is_import = !import.defined_in.is_empty() || !import.through.is_empty();
        is_import.then_some(import)
    }

    /// Finds the files that define the items that a mention names.
    fn search(&self, mention: &Mention) -> Found {
        let mut found = Found::default();
        self.follow(mention.module, &mention.path, &mut found);
        for end in std::mem::take(&mut found.modules) {
            if mention.glob {
                self.expand(end, &mut found, &mut BTreeSet::new());
            } else if mention.path.len() > 1 {
                found.files.insert(self.modules[end].file.clone());
            }
            // The name of a module without a path is more likely the name of a variable.
        }
        found
    }

    /// Returns true if `mention` re-exports something from `file`, and `file` belongs to a module inside the
    /// module of the mention.
    fn is_own_re_export(&self, mention: &Mention, file: &str) -> bool {
        let is_inside = |mut module: usize| {
            while let Some(parent) = self.modules[module].parent {
                if parent == mention.module {
                    return true;
                }
                module = parent;
            }
            false
        };
        let mut modules = self.modules.iter().enumerate();
        mention.re_export && modules.any(|(index, module)| module.file == file && is_inside(index))
    }

    fn root_of(&self, module: usize) -> usize {
        self.modules[module].parent.map_or(module, |parent| self.root_of(parent))
    }

    /// Follows a path that is written in the module `from`.
    fn follow(&self, from: usize, path: &[String], found: &mut Found) {
        let (mut module, mut names, mut is_relative) = (from, path, true);
        while let Some((first, rest)) = names.split_first() {
            module = match first.as_str() {
                "self" => module,
                "super" => self.modules[module].parent.unwrap_or(module),
                "crate" => self.root_of(module),
                _ => break,
            };
            self.pass(module, found);
            (names, is_relative) = (rest, false);
        }
        self.descend(module, names, is_relative, found);
    }

    fn pass(&self, module: usize, found: &mut Found) {
        if self.modules[module].parent.is_some() {
            found.through.insert(module);
        }
    }

    /// Follows `names`, beginning in `module`. If `is_relative`, the first name may be another crate.
    fn descend(&self, module: usize, names: &[String], is_relative: bool, found: &mut Found) {
        let Some((name, rest)) = names.split_first() else {
            found.modules.insert(module);
            return;
        };
        let definitions = self.look_up(module, name, &mut found.seen);
        if definitions.is_empty() {
            // A macro creates the item, or the name is that of a macro defined around this module.
            let owner = if is_relative { self.owner_of_macro(module, name) } else { Some(module) };
            found.files.extend(owner.map(|owner| self.modules[owner].file.clone()));
        }
        for (owner, definition) in definitions {
            match definition {
                Definition::Item | Definition::Macro => {
                    found.files.insert(self.modules[owner].file.clone());
                }
                Definition::Module(inner) => {
                    self.pass(*inner, found);
                    self.descend(*inner, rest, false, found);
                }
                Definition::Alias(path) => {
                    let step = (owner, path.clone());
                    if found.seen.aliases.insert(step.clone()) {
                        self.follow(owner, &[path, rest].concat(), found);
                        found.seen.aliases.remove(&step);
                    }
                }
            }
        }
    }

    /// Returns the module around `module` that defines the macro `name`.
    fn owner_of_macro(&self, module: usize, name: &str) -> Option<usize> {
        let parent = self.modules[module].parent?;
        let definitions = self.modules[parent].names.get(name);
        let is_macro = |definition: &Definition| matches!(definition, Definition::Macro);
        match definitions.is_some_and(|definitions| definitions.iter().any(is_macro)) {
            true => Some(parent),
            false => self.owner_of_macro(parent, name),
        }
    }

    /// Returns the definitions of `name` in `module`, each with the module that contains it.
    fn look_up(&self, module: usize, name: &str, seen: &mut Seen) -> Vec<(usize, &Definition)> {
        if let Some(definitions) = self.modules[module].names.get(name) {
            return definitions.iter().map(|definition| (module, definition)).collect();
        }
        let mut definitions = Vec::new();
        let step = (module, name.to_owned());
        if seen.globs.insert(step.clone()) {
            for glob in &self.modules[module].globs {
                for inner in self.modules_at(module, glob, seen) {
                    definitions.extend(self.look_up(inner, name, seen));
                }
            }
            seen.globs.remove(&step);
        }
        definitions
    }

    /// Returns the modules that `path` names.
    fn modules_at(&self, from: usize, path: &Names, seen: &mut Seen) -> BTreeSet<usize> {
        let mut found = Found { seen: std::mem::take(seen), ..Found::default() };
        self.follow(from, path, &mut found);
        *seen = found.seen;
        found.modules
    }

    /// Finds everything that a glob import of `module` brings into scope: all names in `module`. Of its inner
    /// modules only the names are imported.
    fn expand(&self, module: usize, found: &mut Found, expanded: &mut BTreeSet<usize>) {
        if !expanded.insert(module) {
            return;
        }
        let inside = &self.modules[module];
        let mut definitions = inside.names.values().flatten().peekable();
        if definitions.peek().is_none() {
            found.files.insert(inside.file.clone());
        }
        for definition in definitions {
            match definition {
                Definition::Item | Definition::Macro => {
                    found.files.insert(inside.file.clone());
                }
                Definition::Alias(path) => self.follow(module, path, found),
                Definition::Module(_) => {}
            }
        }
        for glob in &inside.globs {
            for inner in self.modules_at(module, glob, &mut Seen::default()) {
                self.expand(inner, found, expanded);
            }
        }
    }
}
