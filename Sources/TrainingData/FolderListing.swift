import Foundation

/// The names of all files in a folder and in the folders within, as paths from there on, in the order of their bytes.
///
/// What begins with a dot is hidden and no part of it, nor are folders that are only linked to: a link could lead back.
struct FolderListing {
  private(set) var files: [String] = []
  private(set) var problems: [DataProblem] = []

  /// - Throws: `TrainingDataError` where the folder itself cannot be read.
  init(_ url: URL) throws(TrainingDataError) {
    let path = url.path(percentEncoded: false)
    var isFolder: ObjCBool = false
    // A file is not found under a name that ends in a slash.
    var name = path
    while name.count > 1, name.hasSuffix("/") { name.removeLast() }
    guard url.isFileURL, FileManager.default.fileExists(atPath: name, isDirectory: &isFolder) else { throw .noFolder(path: path) }
    guard isFolder.boolValue else { throw .unreadable(path: name, reason: "it is a file; give the folder that it is in") }
    guard let names = try? FileManager.default.contentsOfDirectory(atPath: path)
    else { throw .unreadable(path: path, reason: "its permissions forbid it") }
    add(names, in: url, under: "")
    files.sort { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  private mutating func add(_ names: [String], in folder: URL, under prefix: String) {
    for name in names.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) where !name.hasPrefix(".") {
      let url = folder.appending(path: name), path = url.path(percentEncoded: false)
      var status = stat()
      // A link to nothing is listed, so that reading it fails.
      let kind = stat(path, &status) == 0 ? status.st_mode & S_IFMT : S_IFREG
      if kind == S_IFREG {
        files.append(prefix + name)
      } else if kind != S_IFDIR {
        problems.append(.unusedFile(name: prefix + name, reason: "it is no ordinary file"))
      } else if (try? FileManager.default.destinationOfSymbolicLink(atPath: path)) != nil {
        problems.append(.skippedFolder(name: prefix + name, reason: "it is only linked to"))
      } else if let inner = try? FileManager.default.contentsOfDirectory(atPath: path) {
        add(inner, in: url, under: prefix + name + "/")
      } else {
        problems.append(.skippedFolder(name: prefix + name, reason: "its permissions forbid it"))
      }
    }
  }
}
