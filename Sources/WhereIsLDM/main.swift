// `swift run` prints this: the package is a library, and people look for its tool.
print(
  """
  This package is a library. Its tool is in the package Examples:

    make ldm                    builds it as Examples/.build/release/ldm
    swift run -c release --package-path Examples ldm txt2img --prompt "red apple" --output apple.png
  """)
