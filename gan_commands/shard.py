"""gan.py shard: a folder of images as tar shards."""

from data.streams import write_shards


def shard(options):
    """Write the shards and say how they are named."""
    reading = (options.fit, options.skip_bad, options.num_workers, options.overwrite)
    pattern = write_shards(options.data, options.out, options.per_shard, options.size, *reading)
    print(f"{pattern}: give this name, in quotes, instead of a folder, such as gan.py train --data '{pattern}'")
