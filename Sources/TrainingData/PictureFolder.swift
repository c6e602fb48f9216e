import Foundation
import ImageFiles
import LatentDiffusionFiles
import Tensor

/// Pictures of a folder with their captions.
///
/// Pictures are PNG, JPEG and WebP files in the folder and in folders within it. The caption of `birds/robin.png` is, by the first rule that gives one that
/// is not blank:
///
/// 1. `text` of its line in `birds/metadata.jsonl`, a JSON object on each line with `file_name` (`robin.png`) and `text`; where there is no such file, of its
///    line in `birds/metadata.csv`, whose first line names the columns `file_name` and `text`;
/// 2. the same in the folder above (with `file_name` `birds/robin.png`), and so on up to the folder of the data;
/// 3. the text of `birds/robin.txt`;
/// 4. `Options.defaultCaption`.
///
/// White space at the ends of a caption is cut off. Source: the layout of Hugging Face's `imagefolder`, and of the trainers that keep a text beside each
/// picture.
public struct PictureFolder: Sendable {
  /// How a folder is read.
  public struct Options: Sendable {
    /// A file of the form of `metadata.jsonl` or `metadata.csv` that counts instead of those in the folder, with names from the folder on.
    public var captions: URL?
    /// Of pictures that have none. Nil: they are left out.
    public var defaultCaption: String?
    /// Whether a picture or caption that would be left out is an error.
    public var isStrict: Bool
    /// The longest caption, in bytes.
    public var longestCaption = 64 << 10
    /// The longest file with captions, in bytes.
    public var longestCaptionFile = 256 << 20

    /// - Parameters:
    ///   - captions: a file with captions, instead of those in the folder.
    ///   - defaultCaption: of pictures that have none.
    ///   - isStrict: whether a picture or caption that would be left out is an error.
    public init(captions: URL? = nil, defaultCaption: String? = nil, isStrict: Bool = false) {
      (self.captions, self.defaultCaption, self.isStrict) = (captions, defaultCaption, isStrict)
    }
  }

  /// What can be used, in the order of the names' bytes. There is at least one.
  public let pictures: [CaptionedPicture]
  /// What was left out and why, and what is left over.
  public let problems: [DataProblem]

  /// Reads all captions, and each picture once. The context's `progress` is told how many pictures were read.
  ///
  /// - Throws: `TrainingDataError`, and `CancellationError`.
  public init(_ url: URL, options: Options = Options(), in context: ExecutionContext) throws {
    let path = url.path(percentEncoded: false)
    let listing = try FolderListing(url)
    var captions = try FolderCaptions(listing, in: url, options: options)
    guard !captions.pictures.isEmpty else { throw TrainingDataError.noPictures(path: path) }
    let wanted = captions.captioned()
    // A few at a time, so that no more than these are in memory.
    var read: [Result<CaptionedPicture, ImageFileError>] = []
    for start in stride(from: 0, to: wanted.count, by: 16) {
      context.progress?(start, wanted.count)
      read += try context.apart(min(16, wanted.count - start)) { index, _ in
        let (name, caption) = wanted[start + index]
        return Result { () throws(ImageFileError) in
          try CaptionedPicture(contentsOf: url.appending(path: name), name: name, caption: caption)
        }
      }
    }
    context.progress?(wanted.count, wanted.count)
    pictures = read.compactMap { try? $0.get() }
    problems =
      listing.problems + captions.problems
      + zip(wanted, read).compactMap { wanted, result in
        if case .failure(let error) = result { .unreadablePicture(name: wanted.name, reason: error.description) } else { nil }
      }
    let faults = problems.filter(\.isFault)
    if let first = faults.first {
      if options.isStrict { throw TrainingDataError.strict(path: path, problems: faults.count, first: first) }
      if pictures.isEmpty { throw TrainingDataError.nothingLeft(path: path, problems: faults.count, first: first) }
    }
  }
}
