import Foundation
import ImageFiles

/// Which pictures a folder has, and what its files say about them.
struct FolderCaptions {
  private(set) var pictures: Set<String> = []
  private(set) var problems: [DataProblem] = []
  private var captions: [String: String] = [:]
  private let folder: URL
  private let options: PictureFolder.Options

  init(_ listing: FolderListing, in folder: URL, options: PictureFolder.Options) throws(TrainingDataError) {
    (self.folder, self.options) = (folder, options)
    var texts: [String] = [], metadata: [String] = [], others: [String] = []
    for name in listing.files {
      if CaptionFile.names.contains(String(lastComponent(of: name))) {
        metadata.append(name)
      } else if name.lowercased().hasSuffix(".txt") {
        texts.append(name)
      } else if isPicture(name) {
        pictures.insert(name)
      } else {
        others.append(name)
      }
    }
    let files = Set(listing.files)
    if let url = options.captions {
      add(try captionFile(at: url, name: url.lastPathComponent), under: "", files: files)
      problems += metadata.map { .unusedFile(name: $0, reason: "another file with captions was given") }
    } else {
      try add(metadata: metadata, files: files)
    }
    problems += others.filter { !pictures.contains($0) }.map { .unusedFile(name: $0, reason: "it is neither a picture nor a caption") }
    let owners = Dictionary(grouping: pictures) { stem(of: $0) }
    for name in texts where !pictures.contains(name) { add(textFile: name, to: owners[stem(of: name)] ?? []) }
  }

  /// The pictures that have captions, with them, in the order of their names' bytes. The others are problems.
  mutating func captioned() -> [(name: String, caption: String)] {
    pictures.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }.compactMap { name in
      if let caption = captions[name] ?? options.defaultCaption { return (name, caption) }
      problems.append(.pictureWithoutCaption(name: name))
      return nil
    }
  }

  /// Whether the extension is that of a picture, also of one that cannot be read: the reading says so.
  private func isPicture(_ name: String) -> Bool {
    do {
      _ = try PictureFormat(extensionOf: folder.appending(path: name))
      return true
    } catch .unknownExtension(_, let format) {
      return format != nil
    } catch {
      return false
    }
  }

  private func captionFile(at url: URL, name: String) throws(TrainingDataError) -> CaptionFile {
    CaptionFile(try fileData(at: url, limit: options.longestCaptionFile), name: name)
  }

  /// The files with captions of all folders, the innermost folders first.
  private mutating func add(metadata names: [String], files: Set<String>) throws(TrainingDataError) {
    func depth(_ name: String) -> Int { name.utf8.count { $0 == UInt8(ascii: "/") } }
    for name in names.sorted(by: { (depth($1), $0) < (depth($0), $1) }) {
      let prefix = String(name.dropLast(lastComponent(of: name).count))
      if let winner = CaptionFile.names.first(where: { files.contains(prefix + $0) }), prefix + winner != name {
        problems.append(.unusedFile(name: name, reason: "\(prefix + winner) is there, too, and counts"))
      } else {
        add(try captionFile(at: folder.appending(path: name), name: name), under: prefix, files: files)
      }
    }
  }

  /// A file that names a picture says that it is one, whatever its extension.
  private mutating func add(_ file: CaptionFile, under prefix: String, files: Set<String>) {
    problems += file.problems
    for entry in file.entries {
      let name = prefix + entry.fileName.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
      if files.contains(name) {
        pictures.insert(name)
        add(entry.text, to: name, from: entry.source)
      } else {
        problems.append(.captionWithoutPicture(name: prefix + entry.fileName, source: entry.source))
      }
    }
  }

  private mutating func add(textFile name: String, to owners: [String]) {
    guard !owners.isEmpty else {
      problems.append(.captionWithoutPicture(name: name, source: name))
      return
    }
    do {
      let data = try fileData(at: folder.appending(path: name), limit: .max)
      guard data.count <= options.longestCaptionFile else {
        problems.append(.longCaption(source: name, bytes: data.count, limit: options.longestCaption))
        return
      }
      guard let text = String(validating: data.starts(with: byteOrderMark) ? data.dropFirst(3) : data, as: UTF8.self) else {
        problems.append(.unreadableCaption(source: name, reason: "it is no UTF-8"))
        return
      }
      for owner in owners { add(text, to: owner, from: name) }
    } catch {
      problems.append(.unreadableCaption(source: name, reason: error.description))
    }
  }

  /// A blank caption is none.
  private mutating func add(_ text: String, to name: String, from source: String) {
    let text = text.trimmingCharacters(in: .whitespacesAndNewlines)
    guard !text.isEmpty else { return }
    if text.utf8.count > options.longestCaption {
      problems.append(.longCaption(source: source, bytes: text.utf8.count, limit: options.longestCaption))
    } else if let first = captions[name] {
      if first != text { problems.append(.secondCaption(name: name, source: source)) }
    } else {
      captions[name] = text
    }
  }
}

/// The mark that some editors put before UTF-8.
let byteOrderMark: [UInt8] = [0xEF, 0xBB, 0xBF]

private func lastComponent(of name: String) -> Substring { name.split(separator: "/").last ?? name[...] }

/// The path without the extension.
private func stem(of name: String) -> Substring {
  guard let dot = lastComponent(of: name).lastIndex(of: ".") else { return name[...] }
  return name[..<dot]
}
