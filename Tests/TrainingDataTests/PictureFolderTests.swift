import Foundation
import ImageFiles
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTrainingData
import Synchronization
import Tensor
import Testing

@Suite struct PictureFolderTests {
  @Test func readsTextsBesidePictures() throws {
    let folder = try TemporaryFolder(
      ["b.png": (8, 8), "a.jpg": (9, 7), "inner/c.WEBP": (5, 6), "two.png": (1, 1), "two.jpg": (2, 2)],
      ["b.txt": "\u{FEFF} a bee \r\n", "a.txt": "two\nlines", "inner/c.TXT": "größer 🍎", "two.txt": "both"])
    let read = try folder.read()
    #expect(read.pictures.map(\.name) == ["a.jpg", "b.png", "inner/c.WEBP", "two.jpg", "two.png"])
    #expect(read.captions == ["a.jpg": "two\nlines", "b.png": "a bee", "inner/c.WEBP": "größer 🍎", "two.jpg": "both", "two.png": "both"])
    #expect(read.pictures[0].size == PixelSize(width: 9, height: 7))
    #expect(read.problems.isEmpty)
    #expect(try folder.read(.init(isStrict: true)).pictures.count == 5)
  }

  @Test func readsMetadataOfEachFolder() throws {
    let folder = try TemporaryFolder(
      ["a.png": (8, 8), "birds/robin.png": (8, 8), "birds/wren.png": (8, 8), "fish/eel.png": (8, 8), "odd.dat": (8, 8)],
      [
        "metadata.jsonl": """
        {"file_name": "a.png", "text": "an \\"a\\""}

        {"text": "a robin, from above", "file_name": "birds/robin.png"}\r
        {"file_name": "./fish//eel.png", "text": "an eel"}
        {"file_name": "odd.dat", "text": "no extension of a picture"}
        """,
        "birds/metadata.csv": "text,file_name\r\n\"a robin, \"\"red\"\"\nand near\",robin.png\r\na wren,wren.png",
      ])
    let read = try folder.read()
    #expect(
      read.captions == [
        "a.png": "an \"a\"", "birds/robin.png": "a robin, \"red\"\nand near", "birds/wren.png": "a wren", "fish/eel.png": "an eel",
        "odd.dat": "no extension of a picture",
      ])
    #expect(read.problems == [.secondCaption(name: "birds/robin.png", source: "Line 3 of metadata.jsonl")])
  }

  @Test func metadataCountBeforeTexts() throws {
    let folder = try TemporaryFolder(
      ["a.png": (8, 8), "b.png": (8, 8), "c.png": (8, 8)],
      [
        "metadata.jsonl": "{\"file_name\": \"a.png\", \"text\": \"from lines\"}\n{\"file_name\": \"c.png\", \"text\": \" \"}",
        "metadata.csv": "file_name,text\nb.png,never", "a.txt": "from a text", "b.txt": "b", "c.txt": "c",
      ])
    let read = try folder.read()
    #expect(read.captions == ["a.png": "from lines", "b.png": "b", "c.png": "c"])
    #expect(
      read.problems == [
        .unusedFile(name: "metadata.csv", reason: "metadata.jsonl is there, too, and counts"),
        .secondCaption(name: "a.png", source: "a.txt"),
      ])
  }

  @Test func takesAnotherFileWithCaptions() throws {
    let folder = try TemporaryFolder(["a.png": (8, 8), "in/b.png": (8, 8)], ["metadata.csv": "file_name,text\na.png,never"])
    let other = try TemporaryFolder([:], ["mine.csv": "file_name,text,score\na.png,mine,1\nin/b.png,\"mine, too\",2\n"])
    let read = try folder.read(.init(captions: other.url.appending(path: "mine.csv")))
    #expect(read.captions == ["a.png": "mine", "in/b.png": "mine, too"])
    #expect(
      read.problems == [
        .unusedColumns(source: "mine.csv", names: ["score"]),
        .unusedFile(name: "metadata.csv", reason: "another file with captions was given"),
      ])
    #expect(!read.problems.contains { $0.isFault })
    #expect(throws: TrainingDataError.self) { try folder.read(.init(captions: other.url.appending(path: "none.csv"))) }
  }

  @Test func namesAllThatIsLeftOut() throws {
    let folder = try TemporaryFolder(
      ["a.png": (8, 8), "lonely.png": (8, 8), "blank.png": (8, 8), ".hidden.png": (8, 8), ".cache/x.png": (8, 8)],
      [
        "a.txt": "a", "blank.txt": "  \n", "none.txt": "nothing", "README.md": "x", "broken.png": "no picture", "broken.txt": "b",
        "old.gif": "GIF89a", "old.txt": "c", "metadata.jsonl": "{\"file_name\": \"../a.png\", \"text\": \"x\"}\n[1]\n{\"text\": 3}",
      ])
    let read = try folder.read()
    #expect(read.captions == ["a.png": "a"])
    let reason = "it is no JSON object with the texts file_name and text"
    let path = folder.url.path(percentEncoded: false)
    let expected: [DataProblem] = [
      .unreadableCaption(source: "Line 2 of metadata.jsonl", reason: reason),
      .unreadableCaption(source: "Line 3 of metadata.jsonl", reason: reason),
      .captionWithoutPicture(name: "../a.png", source: "Line 1 of metadata.jsonl"),
      .unusedFile(name: "README.md", reason: "it is neither a picture nor a caption"),
      .captionWithoutPicture(name: "none.txt", source: "none.txt"), .pictureWithoutCaption(name: "blank.png"),
      .pictureWithoutCaption(name: "lonely.png"),
      .unreadablePicture(
        name: "broken.png",
        reason: path + "broken.png is no picture of a known format; PNG, JPEG and WebP can be read, so convert it first."),
      .unreadablePicture(name: "old.gif", reason: path + "old.gif is a GIF file; PNG, JPEG and WebP can be read, so convert it first."),
    ]
    #expect(read.problems == expected)
    for problem in read.problems {
      #expect(problem.description.hasSuffix(".") && !problem.description.hasSuffix(".."), "\(problem)")
    }
    #expect(throws: TrainingDataError.strict(path: path, problems: 8, first: expected[0])) { try folder.read(.init(isStrict: true)) }
  }

  @Test func aDefaultCaptionIsForThoseWithoutOne() throws {
    let folder = try TemporaryFolder(["a.png": (8, 8), "b.png": (8, 8), "c.png": (8, 8)], ["a.txt": "a", "b.txt": ""])
    let read = try folder.read(.init(defaultCaption: "thing", isStrict: true))
    #expect(read.captions == ["a.png": "a", "b.png": "thing", "c.png": "thing"])
    #expect(try folder.read(.init(defaultCaption: "")).captions["c.png"] == "")
  }

  @Test func captionsHaveALimit() throws {
    let long = String(repeating: "é", count: 40_000)
    let folder = try TemporaryFolder(
      ["a.png": (8, 8), "b.png": (8, 8), "c.png": (8, 8)],
      ["a.txt": long, "b.txt": "b", "metadata.jsonl": "{\"file_name\": \"c.png\", \"text\": \"\(long)\"}"])
    let read = try folder.read()
    #expect(read.captions == ["b.png": "b"])
    #expect(
      Set(read.problems.filter { if case .longCaption = $0 { true } else { false } }) == [
        .longCaption(source: "a.txt", bytes: 80_000, limit: 65536),
        .longCaption(source: "Line 1 of metadata.jsonl", bytes: 80_000, limit: 65536),
      ])
    try folder.write("c.txt", Data(repeating: 0xFF, count: 10 << 20))
    #expect(try folder.read().problems.contains(.unreadableCaption(source: "c.txt", reason: "it is no UTF-8")))
    var options = PictureFolder.Options()
    options.longestCaptionFile = 1 << 16
    #expect(throws: TrainingDataError.self) { try folder.read(options) }
  }

  @Test func aFolderWithNothingIsAnError() throws {
    let empty = try TemporaryFolder(), path = empty.url.path(percentEncoded: false)
    #expect(throws: TrainingDataError.noPictures(path: path)) { try empty.read() }
    try empty.write("a.txt", "a")
    #expect(throws: TrainingDataError.noPictures(path: path)) { try empty.read() }
    try empty.write("b.png", smallPicture().pngData())
    #expect(
      throws: TrainingDataError.nothingLeft(path: path, problems: 2, first: .captionWithoutPicture(name: "a.txt", source: "a.txt"))
    ) { try empty.read() }
    #expect(throws: TrainingDataError.unreadable(path: path + "b.png", reason: "it is a file; give the folder that it is in")) {
      try PictureFolder(empty.url.appending(path: "b.png"), in: ExecutionContext(threads: 1))
    }
    try empty.write("b.txt", "b")
    #expect(try empty.read().captions == ["b.png": "b"])
  }

  @Test func aPipeIsNotWaitedFor() throws {
    let folder = try TemporaryFolder(["a.png": (8, 8)], ["a.txt": "a"])
    #expect(mkfifo(folder.url.path(percentEncoded: false) + "b.png", 0o600) == 0)
    #expect(try folder.read().problems == [.unusedFile(name: "b.png", reason: "it is no ordinary file")])
  }

  @Test func linksToFoldersAreNotFollowed() throws {
    let folder = try TemporaryFolder(["a.png": (8, 8)], ["a.txt": "a"])
    let files = FileManager.default, path = folder.url.path(percentEncoded: false)
    try files.createSymbolicLink(atPath: path + "loop", withDestinationPath: path)
    try files.createSymbolicLink(atPath: path + "b.png", withDestinationPath: path + "a.png")
    try files.createSymbolicLink(atPath: path + "gone.png", withDestinationPath: path + "nothing.png")
    try folder.write("b.txt", "b")
    try folder.write("gone.txt", "c")
    let read = try folder.read()
    #expect(read.captions == ["a.png": "a", "b.png": "b"])
    #expect(read.problems.contains(.skippedFolder(name: "loop", reason: "it is only linked to")))
    #expect(read.problems.contains { if case .unreadablePicture("gone.png", _) = $0 { true } else { false } })
  }

  @Test func aChangedPictureIsFound() throws {
    let folder = try TemporaryFolder(["a.png": (8, 8)], ["a.txt": "a"])
    let picture = try #require(try folder.read().pictures.first)
    let pixels = try picture.picture()
    try folder.write("a.png", pixels.webpData())
    // The same pixels in another format are the same picture.
    #expect(try picture.picture() == pixels)
    try folder.write("a.png", smallPicture(8, 8, seed: 99).pngData())
    #expect(throws: TrainingDataError.changed(name: "a.png", reason: "it is another picture")) { try picture.picture() }
    try FileManager.default.removeItem(at: folder.url.appending(path: "a.png"))
    #expect(throws: TrainingDataError.self) { try picture.picture() }
  }

  @Test func transparentPicturesAreSeenOnWhite() throws {
    let clear = Picture(width: 1, height: 1, pixels: [0, 0, 0], alpha: [0])
    #expect(try CaptionedPicture(clear, name: "x", caption: "").picture().pixels == [255, 255, 255])
  }

  @Test func readingIsToldAndCancelled() throws {
    let files = Dictionary(uniqueKeysWithValues: (0..<20).map { ("\($0).png", (2, 2)) })
    let folder = try TemporaryFolder(files)
    var context = ExecutionContext(threads: 2)
    let told = Mutex<[[Int]]>([])
    context.progress = { done, count in told.withLock { $0.append([done, count]) } }
    #expect(try PictureFolder(folder.url, options: .init(defaultCaption: "x"), in: context).pictures.count == 20)
    #expect(told.withLock { $0 } == [[0, 20], [16, 20], [20, 20]])
    context.cancel()
    #expect(throws: CancellationError.self) { try PictureFolder(folder.url, options: .init(defaultCaption: "x"), in: context) }
  }
}
