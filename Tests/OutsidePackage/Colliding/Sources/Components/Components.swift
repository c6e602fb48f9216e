public let nameOfComponents = "Components of another package"
