//! Temporary folders.

use std::path::PathBuf;

/// A folder for one test, removed on drop.
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    /// Creates an empty folder. No two tests may use the same `name`.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        // A killed process with the same id may have left a folder behind.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self { path }
    }

    /// Returns the path of the file called `name`, which need not exist.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
