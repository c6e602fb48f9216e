import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTraining

/// `train-shapes`: a text-to-image model from nothing, in the time of a coffee break.
///
/// It draws its own data, trains an autoencoder, then a text encoder and a U-Net together, writes a folder as diffusers does, loads it again, and measures how
/// often it draws what captions say whose combinations of form, colour and background it has never seen. Exit status 1 if that is less often than it should be.
@main struct TrainShapes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "train-shapes", abstract: "Trains a text-to-image model from nothing, on pictures that it draws itself.")

  @Option(help: ArgumentHelp("Where the model goes: a folder that does not exist yet.", valueName: "folder"))
  var output: String?
  @Option(help: ArgumentHelp("A PNG with pictures that the model has drawn.", valueName: "file"))
  var pictures: String?
  @Option(help: ArgumentHelp("A model of this program whose autoencoder is taken; without it, one is trained.", valueName: "folder"))
  var autoencoder: String?
  @Option(help: "The time that the numbers of steps are for, on two cores with AVX2. The steps decide on the result, not the time.")
  var minutes = 15.0
  @Option(help: "The part of the measured pictures that must be right, 0…1.")
  var bar = 0.9
  @Option(help: "How many pictures are measured.")
  var measured = 200
  @Option(help: "Decides what is random.")
  var seed: UInt64 = 0
  @Flag(help: "Only measure what judges the pictures, on drawn ones and on spoiled ones.")
  var check = false

  func validate() throws {
    guard minutes > 0, minutes <= 600 else { throw ValidationError("The minutes must be above 0 and at most 600.") }
    guard (0...1).contains(bar) else { throw ValidationError("The bar must be from 0 to 1.") }
    guard (2...100_000).contains(measured) else { throw ValidationError("The number of measured pictures must be from 2 to 100000.") }
  }

  func run() async throws {
    if check { return try checkItself() }
    let work = FileManager.default.temporaryDirectory.appending(path: "train-shapes-\(UUID().uuidString)", directoryHint: .isDirectory)
    try FileManager.default.createDirectory(at: work, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: work) }
    let place = output.map { URL(filePath: $0) } ?? work.appending(path: "model")
    let model = try await ShapesTraining(minutes: minutes, seed: seed).model(
      in: work, encodedBy: autoencoder.map { URL(filePath: $0) }, at: place)
    if output != nil { tell("The model is in \(place.path).") }
    let measurement = try await Measurement(of: model, pictures: measured, seed: seed &+ 1)
    if let pictures { try measurement.sheet(columns: 8, rows: 5).write(to: URL(filePath: pictures)) }
    report(measurement.singles, "with one figure")
    report(measurement.pairs, "with two figures")
    report(measurement.all, "altogether")
    guard measurement.all.share >= bar else {
      throw Failure(description: "Too few pictures are right: \(percent(measurement.all.share)), and \(percent(bar)) are needed.")
    }
  }

  private func checkItself() throws {
    let (count, failures) = SelfCheck.problems(scenes: 120)
    for failure in failures.prefix(20) { print(failure) }
    guard failures.isEmpty else { throw Failure(description: "The checker was wrong \(failures.count) times of \(count).") }
    print("The checker was right \(count) times.")
  }

  private func report(_ count: Measurement.Count, _ name: String) {
    let sizes = percent(Double(count.rightSizes) / Double(max(count.pictures, 1)))
    tell("Of \(count.pictures) unseen scenes \(name), \(percent(count.share)) are right, \(sizes) with their sizes.")
  }

  private func percent(_ share: Double) -> String { String(format: "%.1f %%", 100 * share) }
}

/// A failure in one sentence.
struct Failure: Error, CustomStringConvertible {
  let description: String
}

/// Prints a line at once, even where standard output is a file.
func tell(_ line: String) {
  print(line)
  fflush(nil)
}
