"""Korean sentences of what people bought, looked for, kept and sent back, from a small grammar.

Written for this project, under its licence. Words are drawn with weights that fall with their place
in a list, so that a few are common and many rare, as in a log; particles follow the last sound of
the word before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random


def _words(text: str) -> tuple[str, ...]:
    """Words with a slash between them."""
    return tuple(word.strip() for word in text.split("/"))


@dataclass(frozen=True)
class Kind:
    """Things of one kind: what they are called, are like, come in, and are sent back for."""

    nouns: Sequence[str]
    qualities: Sequence[str]
    sizes: Sequence[str]
    faults: Sequence[str]


FOODS = Kind(
    _words(
        """
        우유 / 매운 라면 / 달걀 / 현미밥 / 두부 / 사과 / 고등어 통조림 / 김치만두 / 감귤 / 원두커피
        / 아몬드 / 참기름 / 고추장 / 닭가슴살 / 오트밀 / 딸기잼 / 녹차 / 어묵 / 미역국 / 통밀빵
        / 찹쌀떡 / 요구르트 / 바나나 / 국수 / 꿀 / 치즈 / 누룽지 / 멸치볶음 / 배추김치 / 새우튀김
        """
    ),
    _words(
        "유기농 / 국산 / 대용량 / 무첨가 / 냉동 / 갓 만든 / 선물용 / 저염 / 할인하는 / 새로 나온"
    ),
    _words("한 봉지 / 일 킬로그램 / 열두 개입 / 이백 그램 / 한 상자 / 소포장 / 다섯 병"),
    _words("상해서 / 유통기한이 지나서 / 깨져서 / 늦게 와서 / 맛이 달라서 / 포장이 뜯겨서"),
)
HOME = Kind(
    _words(
        """
        화장지 / 주방세제 / 물티슈 / 샴푸 / 수건 / 칫솔 / 치약 / 건전지 / 물병 / 프라이팬 / 비누
        / 쓰레기봉투 / 섬유유연제 / 베개 / 이불 / 유리컵 / 도마 / 빗자루 / 전구 / 방석
        / 커튼 / 옷걸이 / 수납함 / 선크림 / 핸드크림 / 립밤 / 마스크팩 / 기저귀 / 반창고 / 면도기
        """
    ),
    _words(
        "무향 / 친환경 / 대용량 / 저자극 / 휴대용 / 두꺼운 / 일회용 / 부드러운 / 어린이용 / 반값"
    ),
    _words("한 묶음 / 오백 밀리리터 / 대형 / 서른 장 / 두 개입 / 소형 / 여섯 개들이"),
    _words("새서 / 깨져서 / 늦게 와서 / 너무 작아서 / 색이 달라서 / 다른 것이 와서"),
)
CLOTHES = Kind(
    _words(
        """
        겨울 양말 / 면 티셔츠 / 운동화 / 청바지 / 패딩 / 목도리 / 장갑 / 모자 / 잠옷 / 원피스
        / 가죽 벨트 / 슬리퍼 / 등산화 / 우비 / 레깅스 / 니트 / 셔츠 / 속옷 세트 / 수영복 / 코트
        """
    ),
    _words("두꺼운 / 가벼운 / 방수 / 부드러운 / 아동용 / 검은 / 헐렁한 / 한정판 / 따뜻한 / 편한"),
    _words("중형 / 대형 / 소형 / 한 켤레 / 두 벌 / 특대형 / 세 장 묶음"),
    _words("너무 커서 / 작아서 / 색이 달라서 / 찢어져서 / 얇아서 / 어울리지 않아서"),
)
THINGS = Kind(
    _words(
        """
        무선 이어폰 / 충전기 / 키보드 / 마우스 / 보조배터리 / 선풍기 / 가습기 / 전기포트 / 스탠드
        / 블렌더 / 공책 / 볼펜 / 그림책 / 퍼즐 / 색연필 / 캠핑 의자 / 텐트 / 요가 매트
        / 자전거 헬멧 / 헤어드라이어
        """
    ),
    _words(
        "휴대용 / 튼튼한 / 작은 / 접이식 / 한정판 / 어린이용 / 조용한 / 새로 나온 / 가벼운 / 중고"
    ),
    _words("소형 / 한 세트 / 대형 / 이 미터 / 두 개입 / 흰색 / 검은색"),
    _words("작동하지 않아서 / 깨져서 / 시끄러워서 / 흠이 있어서 / 늦게 와서 / 부품이 빠져서"),
)
KINDS = (FOODS, HOME, CLOTHES, THINGS)
COUNTS = _words(
    """
    하나 / 두 개 / 세 개 / 네 개 / 한 상자 / 두 상자 / 다섯 개 / 한 묶음 / 열 개 / 두 묶음
    """
)
TIMES = _words(
    """
    어제 / 오늘 아침에 / 지난주에 / 퇴근길에 / 주말에 / 밤늦게 / 점심시간에 / 월급날에 /
    설 전에 / 방금 / 이번 달에 / 새벽에 / 여름휴가 전에 / 비 오는 날 / 개학 전에
    """
)
PEOPLE = _words(
    """
    어머니 / 남편 / 동생 / 친구 / 아내 / 딸 / 아들 / 할머니 / 회사 동료 / 이웃 / 조카 /
    손님 / 아이 / 형 / 선생님
    """
)
PLACES = _words(
    """
    앱 / 마트 / 온라인 매장 / 동네 가게 / 백화점 / 편의점 / 시장 / 라이브 방송 / 면세점 /
    공동구매
    """
)
DONE = _words(
    """
    했습니다 / 했어요 / 했다 / 했는데 벌써 왔어요 / 하려고 합니다 /
    하고 기다리는 중이에요 / 했네요 / 할게요
    """
)
PUT = _words(
    """
    담았습니다 / 담았어요 / 담아 두었다 / 담아 놓고 고민 중이에요 / 담았다가 뺐어요 /
    담으려고요
    """
)
ASPECTS = _words(
    """
    배송 / 포장 / 가격 / 품질 / 색 / 향 / 맛 / 크기 / 무게 / 마감 / 설명 / 양 / 디자인 /
    소리 / 촉감
    """
)
LIKED = _words(
    """
    좋아서 / 마음에 들어서 / 괜찮아서 / 기대보다 나아서 / 생각보다 빨라서 / 저렴해서 /
    만족스러워서 / 예뻐서
    """
)
JUDGED = _words(
    """
    좋았어요 / 마음에 듭니다 / 아쉬웠어요 / 생각과 달랐습니다 / 훌륭하네요 /
    그저 그랬어요 / 기대 이상입니다 / 별로였어요 / 나쁘지 않아요 / 조금 비싼 편이에요 /
    사진과 똑같아요 / 금방 바뀌었어요
    """
)


def sentences(number: int, seed: int = 0) -> list[str]:
    """So many different sentences, in an order by chance."""
    random = Random(seed)
    drawn: dict[str, None] = {}
    while len(drawn) < number:
        drawn[random.choice(FORMS)(random)] = None
    return list(drawn)


def _one(random: Random, words: Sequence[str]) -> str:
    """A word: the one in place n has weight 1 / (n + 3)."""
    return random.choices(words, [1 / (place + 3) for place in range(len(words))])[0]


def _with(word: str, closed: str, open: str) -> str:
    """A word with its particle: `closed` behind a final consonant."""
    return word + (closed if (ord(word[-1]) - 0xAC00) % 28 else open)


def _thing(random: Random, kind: Kind | None = None) -> str:
    kind = kind or random.choice(KINDS)
    noun = _one(random, kind.nouns)
    return f"{_one(random, kind.qualities)} {noun}" if random.random() < 0.5 else noun


def _bought(random: Random) -> str:
    what = _with(_thing(random), "을", "를")
    return f"{_one(random, TIMES)} {what} {_one(random, COUNTS)} 구매{_one(random, DONE)}"


def _judged(random: Random) -> str:
    what, aspect = _with(_thing(random), "은", "는"), _with(_one(random, ASPECTS), "이", "가")
    return f"{what} {aspect} {_one(random, JUDGED)}"


def _in_the_basket(random: Random) -> str:
    who, what = _with(_one(random, PEOPLE), "이", "가"), _with(_thing(random), "을", "를")
    return f"{who} {_one(random, PLACES)}에서 {what} 보고 장바구니에 {_one(random, PUT)}"


def _sold_out(random: Random) -> str:
    kind = random.choice(KINDS)
    gone, other = _with(_thing(random, kind), "이", "가"), _thing(random, kind)
    return f"{gone} 품절되어 {_towards(other)} 바꾸어 주문{_one(random, DONE)}"


def _towards(word: str) -> str:
    """ㄹ counts as open here."""
    return word + ("으로" if (ord(word[-1]) - 0xAC00) % 28 not in (0, 8) else "로")


def _again(random: Random) -> str:
    what, aspect = _thing(random), _with(_one(random, ASPECTS), "이", "가")
    again = f"이번에도 {_one(random, COUNTS)} 더 주문{_one(random, DONE)}"
    return f"지난번에 산 {_with(what, '은', '는')} {aspect} {_one(random, LIKED)} {again}"


def _together(random: Random) -> str:
    first, second = _with(_thing(random), "과", "와"), _with(_thing(random), "을", "를")
    return f"할인 쿠폰으로 {first} {second} 함께 결제{_one(random, DONE)}"


def _title(random: Random) -> str:
    kind = random.choice(KINDS)
    words = (kind.qualities, kind.nouns, kind.sizes)
    return " ".join(_one(random, of_kind) for of_kind in words)


def _asked(random: Random) -> str:
    what = _with(_thing(random), "은", "는")
    ends = (
        "언제 다시 들어오나요?",
        "선물 포장이 되나요?",
        "교환할 수 있나요?",
        "어느 쪽이 더 잘 팔리나요?",
    )
    return f"혹시 {what} {_one(random, ends)}"


def _sent_back(random: Random) -> str:
    kind = random.choice(KINDS)
    what, fault = _with(_thing(random, kind), "이", "가"), _one(random, kind.faults)
    return f"{_one(random, TIMES)} 받은 {what} {fault} 반품 신청{_one(random, DONE)}"


def _looked_for(random: Random) -> str:
    what = _with(_thing(random), "을", "를")
    then = (
        "비교해 보고 찜했어요",
        "검색하다가 그냥 나왔어요",
        "찾다가 후기를 읽었습니다",
        "보여 달라고 했어요",
    )
    return f"{_one(random, PEOPLE)} 선물로 {what} {_one(random, then)}"


FORMS: tuple[Callable[[Random], str], ...] = (
    _bought,
    _judged,
    _in_the_basket,
    _sold_out,
    _again,
    _together,
    _title,
    _asked,
    _sent_back,
    _looked_for,
)
