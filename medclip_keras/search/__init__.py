"""Search embeddings by pictures, by words, and by both: "like this picture, without effusion".

    python -m medclip_keras.search build --embeddings DIR --output INDEX
    python -m medclip_keras.search query --index INDEX --model PATH --image FILE --without "pleural effusion"

    from medclip_keras.search import SearchIndex, ask

    index = SearchIndex.open("INDEX")
    ask(index, medclip_keras.load(PATH), image="xray.png", without=["There is a pleural effusion."], k=10)

`beam_jobs.embed_images` makes the embeddings; `--sentences FILE --model PATH` builds an index of sentences.
`queries` defines the arithmetic of composed queries and its limits. An index refuses another model's queries.

**The library is faiss** (`faiss-cpu`, MIT, wheels for Python 3.11, maintained by Meta), in the extra
`search`. Up to `EXACT_ROWS` rows the index is exact. Above, it is an inverted file of 8-bit vectors
(IVF…,SQ8): rows are grouped around k-means centres, and a query reads the groups of its nearest centres.
100,000 vectors of 512 dimensions (clustered, see tests/benchmarks/search.py), two busy cores, recall@10 of
the exact answer:

| | licence | image, text, composed queries | build | memory |
|---|---|---|---|---|
| faiss IVF1024,SQ8, 32 groups read | MIT | .988, .987, .987 | 41 s | 52 MiB |
| faiss HNSW32,SQ8, efSearch 128 | MIT | .982, .987, .895 | 87 s | 75 MiB |
| usearch int8, expansion 256 | Apache-2.0 | .887, .893, .876 | 200 s | 81 MiB |

Of 1,000,000 vectors usearch found .806, .789, .616 (760 MiB), the inverted file .987, .984, .987 (500 MiB).
Graphs lose composed queries, to whose neighbours few paths lead; of groups as many are read as the recall
needs. hnswlib (Apache-2.0) has no wheels and no 8-bit vectors. A build measures its recall on pictures and
on composed queries, reads as many groups as `TARGET_RECALL` needs, and writes both into the index's
manifest.
"""

from medclip_keras.search.index import EXACT_ROWS, TARGET_RECALL, Match, SearchIndex
from medclip_keras.search.queries import ask, compose

__all__ = ["EXACT_ROWS", "TARGET_RECALL", "Match", "SearchIndex", "ask", "compose"]
